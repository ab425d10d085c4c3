# Moves votes from Redis to PostgreSQL, the oldest first. A vote is in the list `moving` while it is written, and a second
# write of it changes nothing: wherever the worker, Redis or PostgreSQL is killed, the next worker finishes the vote.
PGPASSWORD=$(</run/secrets/password)
export PGPASSWORD

# Asks Redis, whose connection is descriptor 3; its answer is in $reply, empty when there is nothing.
redis() {
    printf '%s\r\n' "$*" >&3 && read -r -t 10 reply <&3 || return
    case $reply in
        '$-1'* | '*-1'*) reply= ;;
        '$'*) read -r -t 10 reply <&3 ;;
        -*) echo "redis: $reply" >&2; return 1 ;;
    esac
    local code=$?
    reply=${reply%$'\r'}
    return $code
}

save() { # VOTER:CHOICE
    psql -qv ON_ERROR_STOP=1 -v voter="${1%:*}" -v choice="${1#*:}" <<'SQL'
insert into votes values (:'voter', :'choice') on conflict (voter) do update set choice = excluded.choice;
SQL
}

move() {
    redis LINDEX moving 0 || return
    if [ -n "$reply" ]; then
        save "$reply" && redis LREM moving 1 "$reply"
    else
        redis BLMOVE votes moving LEFT RIGHT 5
    fi
}

while :; do
    if psql -qc 'create table if not exists votes (voter text primary key, choice text not null)'; then
        { while move; do :; done; } 3<>/dev/tcp/redis/6379
    fi
    echo "Redis or PostgreSQL is away, again in a second" >&2
    sleep 1
done
