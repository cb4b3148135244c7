#!/usr/bin/env bash
# The official Java SDK of MNS drives the front of `ceiba broker`: every operation that it has. Maven brings the SDK into
# target/java-mns once for each pom.xml; later runs ask nobody. Needs target/debug/ceiba, or CEIBA names the program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=$root/target/java-mns
program=${CEIBA:-$root/target/debug/ceiba}
if ! cmp -s "$here/mns/pom.xml" "$target/pom.xml"; then
  rm -rf "$target"
  mvn -q -B -f "$here/mns/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$target/lib"
  cp "$here/mns/pom.xml" "$target/pom.xml"
fi
if [ -n "$(find "$here/mns" -name '*.java' -newer "$target/classes" 2>/dev/null)" ] || [ ! -d "$target/classes" ]; then
  rm -rf "$target/classes"
  javac -Xlint:all,-processing,-path,-serial -Werror -d "$target/classes" -cp "$target/lib/*" "$here"/mns/*.java
fi
# The SDK reads account and region out of a name of the service: that name leads to this machine.
echo "127.0.0.1 1234.mns.cn-test.aliyuncs.com" >"$target/hosts"
exec java -XX:+UseSerialGC -Xmx128m -XX:TieredStopAtLevel=1 -Djdk.net.hosts.file="$target/hosts" \
  -cp "$target/classes:$target/lib/*" Front "$program"
