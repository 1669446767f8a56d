"""The messages of the protocol, of gRPC health and of reflection: names and numbers as they are published."""

from __future__ import annotations

from cumulant.serving.grpc.protos import Package

_UNARY = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)

INFERENCE = Package(
    "open_inference_grpc.proto",
    "inference",
    """
ServerLiveRequest:
ServerLiveResponse: 1 live bool
ServerReadyRequest:
ServerReadyResponse: 1 ready bool
ModelReadyRequest: 1 name string, 2 version string
ModelReadyResponse: 1 ready bool
ServerMetadataRequest:
ServerMetadataResponse: 1 name string, 2 version string, 3 extensions string[]
ModelMetadataRequest: 1 name string, 2 version string
ModelMetadataResponse: 1 name string, 2 versions string[], 3 platform string, 4 inputs ModelMetadataResponse.TensorMetadata[], 5 outputs ModelMetadataResponse.TensorMetadata[]
ModelMetadataResponse.TensorMetadata: 1 name string, 2 datatype string, 3 shape int64[]
InferParameter: 1 bool_param? bool, 2 int64_param? int64, 3 string_param? string, 4 double_param? double, 5 uint64_param? uint64
InferTensorContents: 1 bool_contents bool[], 2 int_contents int32[], 3 int64_contents int64[], 4 uint_contents uint32[], 5 uint64_contents uint64[], 6 fp32_contents float[], 7 fp64_contents double[], 8 bytes_contents bytes[]
ModelInferRequest: 1 model_name string, 2 model_version string, 3 id string, 4 parameters {InferParameter}, 5 inputs ModelInferRequest.InferInputTensor[], 6 outputs ModelInferRequest.InferRequestedOutputTensor[], 7 raw_input_contents bytes[]
ModelInferRequest.InferInputTensor: 1 name string, 2 datatype string, 3 shape int64[], 4 parameters {InferParameter}, 5 contents InferTensorContents
ModelInferRequest.InferRequestedOutputTensor: 1 name string, 2 parameters {InferParameter}
ModelInferResponse: 1 model_name string, 2 model_version string, 3 id string, 4 parameters {InferParameter}, 5 outputs ModelInferResponse.InferOutputTensor[], 6 raw_output_contents bytes[]
ModelInferResponse.InferOutputTensor: 1 name string, 2 datatype string, 3 shape int64[], 4 parameters {InferParameter}, 5 contents InferTensorContents
ModelStreamInferResponse: 1 error_message string, 2 infer_response ModelInferResponse
ModelConfigRequest: 1 name string, 2 version string
ModelConfigResponse: 1 config ModelConfig
enum DataType: TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32 TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16
ModelConfig: 1 name string, 2 platform string, 3 version_policy ModelVersionPolicy, 4 max_batch_size int32, 5 input ModelInput[], 6 output ModelOutput[], 13 sequence_batching ModelSequenceBatching, 14 parameters {ModelParameter}, 17 backend string
ModelSequenceBatching: 1 max_sequence_idle_microseconds uint64, 5 state ModelSequenceBatching.State[]
ModelSequenceBatching.State: 1 input_name string, 2 output_name string, 3 data_type DataType, 4 dims int64[]
ModelInput: 1 name string, 2 data_type DataType, 4 dims int64[]
ModelOutput: 1 name string, 2 data_type DataType, 3 dims int64[]
ModelParameter: 1 string_value string
ModelVersionPolicy: 3 specific? ModelVersionPolicy.Specific
ModelVersionPolicy.Specific: 1 versions int64[]
ModelStatisticsRequest: 1 name string, 2 version string
ModelStatisticsResponse: 1 model_stats ModelStatistics[]
ModelStatistics: 1 name string, 2 version string, 3 last_inference uint64, 4 inference_count uint64, 5 execution_count uint64, 6 inference_stats InferStatistics
InferStatistics: 1 success StatisticDuration, 2 fail StatisticDuration, 3 queue StatisticDuration, 4 compute_input StatisticDuration, 5 compute_infer StatisticDuration, 6 compute_output StatisticDuration, 7 cache_hit StatisticDuration, 8 cache_miss StatisticDuration
StatisticDuration: 1 count uint64, 2 ns uint64
ModelRepositoryParameter: 1 bool_param? bool, 2 int64_param? int64, 3 string_param? string, 4 bytes_param? bytes
RepositoryIndexRequest: 1 repository_name string, 2 ready bool
RepositoryIndexResponse: 1 models RepositoryIndexResponse.ModelIndex[]
RepositoryIndexResponse.ModelIndex: 1 name string, 2 version string, 3 state string, 4 reason string
RepositoryModelLoadRequest: 1 repository_name string, 2 model_name string, 3 parameters {ModelRepositoryParameter}
RepositoryModelLoadResponse:
RepositoryModelUnloadRequest: 1 repository_name string, 2 model_name string, 3 parameters {ModelRepositoryParameter}
RepositoryModelUnloadResponse:
""",  # noqa: E501 - a line a message, as it is looked up
    {
        "GRPCInferenceService": [
            *((name, f"{name}Request", f"{name}Response", "1-1") for name in _UNARY),
            ("ModelStreamInfer", "ModelInferRequest", "ModelStreamInferResponse", "n-n"),
        ]
    },
)

HEALTH = Package(
    "grpc/health/v1/health.proto",
    "grpc.health.v1",
    """
HealthCheckRequest: 1 service string
HealthCheckResponse: 1 status HealthCheckResponse.ServingStatus
enum HealthCheckResponse.ServingStatus: UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN
""",
    {
        "Health": [
            ("Check", "HealthCheckRequest", "HealthCheckResponse", "1-1"),
            ("Watch", "HealthCheckRequest", "HealthCheckResponse", "1-n"),
        ]
    },
)


def _reflection(version: str) -> Package:
    return Package(
        f"grpc/reflection/{version}/reflection.proto",
        f"grpc.reflection.{version}",
        """
ServerReflectionRequest: 1 host string, 3 file_by_filename? string, 4 file_containing_symbol? string, 5 file_containing_extension? ExtensionRequest, 6 all_extension_numbers_of_type? string, 7 list_services? string
ExtensionRequest: 1 containing_type string, 2 extension_number int32
ServerReflectionResponse: 1 valid_host string, 2 original_request ServerReflectionRequest, 4 file_descriptor_response? FileDescriptorResponse, 5 all_extension_numbers_response? ExtensionNumberResponse, 6 list_services_response? ListServiceResponse, 7 error_response? ErrorResponse
FileDescriptorResponse: 1 file_descriptor_proto bytes[]
ExtensionNumberResponse: 1 base_type_name string, 2 extension_number int32[]
ListServiceResponse: 1 service ServiceResponse[]
ServiceResponse: 1 name string
ErrorResponse: 1 error_code int32, 2 error_message string
""",  # noqa: E501 - as above
        {"ServerReflection": [("ServerReflectionInfo", "ServerReflectionRequest", "ServerReflectionResponse", "n-n")]},
    )


REFLECTION = (_reflection("v1"), _reflection("v1alpha"))
