#!/bin/sh
# The page of voters: GET shows the choices, POST puts a vote at the end of the list `votes` in Redis. A voter is known
# by a cookie; the vote is `VOTER:CHOICE`.
voter=$(echo "$HTTP_COOKIE" | sed -n 's/^\(.*; \)\{0,1\}voter=\([0-9a-f]\{1,32\}\).*/\2/p')
[ -n "$voter" ] || voter=$(head -c 16 /dev/urandom | md5sum | cut -d ' ' -f 1)

answer() { # STATUS TEXT
    printf 'Status: %s\r\nContent-Type: text/html\r\nSet-Cookie: voter=%s\r\n\r\n%s\n' "$1" "$voter" "$2"
    exit
}
form='<form method="post"><button name="choice" value="cats">Cats</button><button name="choice" value="dogs">Dogs</button></form>'

[ "$REQUEST_METHOD" = POST ] || answer '200 OK' "$form"
case $(head -c "$CONTENT_LENGTH") in
    choice=cats) choice=cats ;;
    choice=dogs) choice=dogs ;;
    *) answer '400 Bad Request' 'vote for cats or dogs' ;;
esac
# Redis answers with the length of the list.
case $(printf 'RPUSH votes %s:%s\r\nQUIT\r\n' "$voter" "$choice" | nc redis 6379) in
    :*) answer '200 OK' "voted for $choice $form" ;;
    *) answer '503 Service Unavailable' 'the vote was not taken, try again' ;;
esac
