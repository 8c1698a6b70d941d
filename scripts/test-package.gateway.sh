# shellcheck shell=bash
# Sourced by test-package: the life of the gateway's package in a fresh system, beside a server that has the module.
#
# No systemd runs there. So the service is started as systemd would do it, by what its unit says: as that user, with that
# environment, by that command. Where the package systemd is installed, its own tools have a look at the unit, too.

gateway_unit() { sed -n "s/^$1=-\{0,1\}//p" "$root/usr/lib/systemd/system/redis-rl-gateway.service"; }

gateway_pid() { find "$root"/proc/[0-9]*/exe -lname '*/usr/bin/redis-rl-gateway*' 2>/dev/null | awk -F / '{ print $(NF - 1) }'; }

start_gateway() {
    local user environment command
    user=$(gateway_unit User)
    mapfile -t environment < <(grep '^[A-Z]' "$root$(gateway_unit EnvironmentFile)")
    read -ra command < <(gateway_unit ExecStart)
    within "$root" "$user" / env "${environment[@]}" "${command[@]}" >"$root/tmp/gateway.log" 2>&1 &
    gateway_job=$!
    for _ in {1..300}; do
        ! grep -q '^redis-rl-gateway: ready$' "$root/tmp/gateway.log" || break
        kill -0 "$gateway_job" 2>/dev/null || break
        sleep 0.1
    done
    gateway=$(gateway_pid)
    [[ -n $gateway ]] || { cat "$root/tmp/gateway.log"; give_up "the gateway does not start"; }
    [[ $(within "$root" root / stat -c %U "/proc/$gateway") == redis-rl-gateway ]] || give_up "the gateway does not run as its own user"
}

stop_gateway() {
    kill -TERM "$gateway"
    wait "$gateway_job" || { cat "$root/tmp/gateway.log"; give_up "the gateway ended with $?"; }
}

# ask PORT REQUEST [BODY]: its answer, for a client behind one proxy.
ask() {
    local body=${3:-}
    exec 4<>"/dev/tcp/127.0.0.1/$1"
    printf '%s HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' \
        "$2" "${#body}" "$body" >&4
    timeout 30 tr -d '\r' <&4
    exec 4>&-
}

# Nobody has started the service, or has it started at boot.
gateway_sleeps() {
    [[ -z $(gateway_pid) ]] || give_up "$1 has started the gateway"
    ! find "$root/etc/systemd" "$root"/etc/rc?.d -name '*redis-rl-gateway*' 2>/dev/null | grep . || give_up "$1 has enabled the gateway (above)"
}

# What it is installed with: five logins a minute of each address, and ten if another minute begins meanwhile.
test_example() {
    local answer granted=0
    within "$root" root / redis-rl-gateway check /etc/redis-rl-gateway/rules
    while answer=$(ask 8080 'GET /check/login') && [[ $answer == 'HTTP/1.1 200 '* ]]; do
        granted=$((granted + 1))
        [[ $granted -le 10 ]] || give_up "the gateway has granted $granted logins"
    done
    [[ $granted -ge 5 && $answer == 'HTTP/1.1 429 '* && ${answer,,} == *$'\n''retry-after: '* ]] ||
        give_up "the gateway, after $granted logins: $answer"
    answer=$(ask 8080 'POST /json' '{"domain": "example", "descriptors": [{"entries": [{"key": "remote_address", "value": "192.0.2.2"}]}]}')
    [[ $answer == 'HTTP/1.1 200 '* && $answer == *'"overallCode":"OK"'* ]] || give_up "/json: $answer"
    # The server has decided, and not the gateway without it.
    [[ -n $(reply KEYS 'rl:fw:example:path=*') ]] || give_up "the gateway has not asked the server: $(cat "$root/tmp/gateway.log")"
    answer=$(ask 6070 'GET /metrics')
    grep -q '^rl_gateway_requests_total{.*over_limit.*} [1-9]' <<<"$answer" || give_up "the metrics are: $answer"
}

# The package before has another example, which nobody changed: so it gets the new one. What was changed is kept.
test_gateway_upgrade() {
    local file=$root/etc/redis-rl-gateway/gateway.env
    echo 'RL_GATEWAY_HTTP=127.0.0.1:8090' >>"$file"
    apt install ./gateway-newer.deb
    grep -qx 'RL_GATEWAY_HTTP=127.0.0.1:8090' "$file" || give_up "the upgrade has changed gateway.env"
    [[ $(stat -c '%a %u' "$file") == '600 0' ]] || give_up "gateway.env is not root's alone after the upgrade"
    ! grep -q '^# An older example' "$root/etc/redis-rl-gateway/rules/example.yaml" || give_up "the upgrade has kept the older example"
    [[ $(gateway_pid) == "$gateway" ]] || give_up "the upgrade has ended the gateway"
    stop_gateway
    start_gateway
    [[ $(ask 8090 'GET /healthz') == 'HTTP/1.1 200 '* ]] || give_up "the gateway does not obey gateway.env: $(cat "$root/tmp/gateway.log")"
    stop_gateway
}

# At most 2.0 of 10 is exposed: what is left is that it may use the network.
test_unit() {
    [[ -x $root/usr/bin/systemd-analyze ]] || return 0
    within "$root" root / systemd-analyze verify redis-rl-gateway.service
    within "$root" root / systemd-analyze security --offline=true --no-pager --threshold=20 redis-rl-gateway.service
}

test_gateway() {
    add gateway-older.deb redis-rl-gateway
    gateway_sleeps "the installation"
    [[ $(stat -c '%a %u' "$root/etc/redis-rl-gateway/gateway.env") == '600 0' ]] || give_up "gateway.env is not root's alone"
    test_unit
    start_gateway
    test_example
    test_gateway_upgrade
    gateway_sleeps "the upgrade"
    # Unquoted on purpose: one word a key.
    # shellcheck disable=SC2046
    reply RL.RESET $(reply KEYS 'rl:*')
    remove redis-rl-gateway
    ! within "$root" root / getent passwd redis-rl-gateway || give_up "the gateway's user is still there"
}
