# Sourced by what starts servers to play with: which port is free?

# A connection tells on every system, whether it is this address that is taken or all of them.
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port 6379: prints it, or the next one of a hundred that is free.
free_port() {
    local port=$1
    while taken "$port"; do
        port=$((port + 1))
        if [[ $port -ge $(($1 + 100)) ]]; then
            say "the ports $1 to $(($1 + 99)) are all taken"
            return 1
        fi
    done
    echo "$port"
}
