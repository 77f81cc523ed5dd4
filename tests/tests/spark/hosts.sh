#!/bin/bash
# Four hosts as network namespaces: a resource manager, two nodes, a client. Everything that one says
# to another goes over the network between them; loopback addresses reach nobody else.
# Usage: hosts.sh PROGRAMS SPARK_HOME FOLDER NUMBER
# NUMBER tells the namespaces of runs at the same time apart.
set -eu
programs=$1 spark=$2 here=$3 number=$4
prefix=bt$number
lan=10.77.$((number % 250))

cleanup() {
    for pid in $(cat "$here/pids" 2>/dev/null); do kill "$pid" 2>/dev/null || true; done
    for pid in $(cat "$here/pids" 2>/dev/null); do tail --pid="$pid" -s 0.05 -f /dev/null; done
    for k in 1 2; do
        [ ! -e "$here/n$k.toml" ] || "$programs/bobbin-nodeagent" --conf "$here/n$k.toml" --end-containers || true
    done
    for host in rm n1 n2 cl lan; do ip netns del "$prefix$host" 2>/dev/null || true; done
}
trap cleanup EXIT
chmod 755 "$here"

ip netns add "${prefix}lan"
ip -n "${prefix}lan" link add br0 type bridge
ip -n "${prefix}lan" link set br0 up
address=1
for host in rm n1 n2 cl; do
    ip netns add "$prefix$host"
    ip -n "$prefix$host" link set lo up
    ip -n "$prefix$host" link add e0 type veth peer name "v$host" netns "${prefix}lan"
    ip -n "${prefix}lan" link set "v$host" master br0 up
    ip -n "$prefix$host" addr add "$lan.$address/24" dev e0
    ip -n "$prefix$host" link set e0 up
    address=$((address + 1))
done
# Not `ip netns exec`: it would hide the control groups.
on() { local host=$1; shift; nsenter --net="/run/netns/$prefix$host" "$@"; }
start() { local host=$1 log=$2; shift 2; nsenter --net="/run/netns/$prefix$host" "$@" >"$log" 2>&1 & echo $! >>"$here/pids"; }

cat >"$here/rm.toml" <<X
[folders]
lib = "$here/rm/lib"
run = "$here/rm/run"
log = "$here/rm/log"
[grpc]
listen = "$lan.1:8034"
[http]
listen = "$lan.1:8088"
[yarn]
client_listen = "$lan.1:8032"
scheduler_listen = "$lan.1:8030"
admin_listen = "$lan.1:8033"
X
start rm "$here/rm.log" "$programs/bobbin-resourcemanager" --conf "$here/rm.toml"
waited=0
until [ -e "$here/rm/run/resourcemanager.json" ]; do
    waited=$((waited + 1)); [ "$waited" -lt 600 ] || { cat "$here/rm.log"; exit 1; }
    read -rt 0.1 <> <(:) || true
done
export BOBBIN_RM_SOCKET=$here/rm/run/resourcemanager.sock
for k in 1 2; do
    ip=$lan.$((k + 1))
    "$programs/bobbin" token create --node "$ip" --out "$here/n$k.token" 2>/dev/null
    cat >"$here/n$k.toml" <<X
host = "$ip"
[folders]
local = "$here/n$k/local"
log = "$here/n$k/log"
run = "$here/n$k/run"
lib = "$here/n$k/lib"
[grpc]
listen = "$ip:8043"
[yarn]
listen = "$ip:8041"
[http]
listen = "$ip:8042"
[resourcemanager]
address = "$lan.1:8034"
token_file = "$here/n$k.token"
[resources]
memory_mib = 4096
vcores = 8
[sandbox]
readable_dirs = ["$spark"]
X
    start "n$k" "$here/n$k.log" "$programs/bobbin-nodeagent" --conf "$here/n$k.toml"
done
waited=0
until [ "$("$programs/bobbin" node list -o json | grep -o RUNNING | wc -l)" = 2 ]; do
    waited=$((waited + 1)); [ "$waited" -lt 600 ] || { "$programs/bobbin" node list; exit 1; }
    read -rt 0.1 <> <(:) || true
done
"$programs/bobbin" client-config --out "$here/hadoop" 2>/dev/null
"$programs/bobbin" token create --hadoop "$here/hadoop.token" 2>/dev/null

export SPARK_HOME=$spark HADOOP_CONF_DIR=$here/hadoop PYSPARK_PYTHON=/usr/bin/python3
submit() { # MODE ARGUMENTS...
    local mode=$1; shift
    on cl timeout 300 "$spark/bin/spark-submit" --master yarn --deploy-mode "$mode" --num-executors 2 \
        --conf "spark.yarn.jars=local:$spark/jars/*" --conf spark.executor.memory=600m \
        --conf spark.executor.instances=2 "$spark/examples/src/main/python/pi.py" "$@"
}
echo "== without a token"
submit cluster 2 >"$here/refused.log" 2>&1 && echo "not refused" || echo "exit $?"
grep -o "bobbin token create --hadoop FILE" "$here/refused.log" | head -n 1
on cl curl -s -o /dev/null -w 'web %{http_code}\n' "http://$lan.1:8088/ws/v1/cluster/apps?user.name=root"
export HADOOP_TOKEN_FILE_LOCATION=$here/hadoop.token
for mode in cluster client; do
    echo "== $mode"
    submit "$mode" 4 >"$here/$mode.out" 2>"$here/$mode.log" && echo "exit 0" || { echo "exit $?"; tail -n 40 "$here/$mode.log" "$here"/*.log; }
done
grep -o "Pi is roughly 3" "$here/client.out"
"$programs/bobbin" app logs @last --driver --file stdout >/dev/null && echo "logs"
"$programs/bobbin" app list -o json
