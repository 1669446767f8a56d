"""Messages that name a registered schema: Avro and Protobuf, as the serializers of Confluent write them."""
