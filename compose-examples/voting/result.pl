# The page of results: asks PostgreSQL each time, by psql. Both perl and psql are in the image of PostgreSQL.
use strict;
use warnings;
use IO::Socket::INET;

open my $secret, '<', '/run/secrets/password' or die "the password: $!\n";
chomp($ENV{PGPASSWORD} = <$secret>);
$ENV{PGCONNECT_TIMEOUT} = 2;
$SIG{TERM} = sub { exit };

my $server = IO::Socket::INET->new(LocalPort => 80, Listen => 128, ReuseAddr => 1) or die "port 80: $!\n";
$SIG{CHLD} = 'IGNORE';
while (1) {
    my $client = $server->accept or next;
    next if fork;
    $SIG{CHLD} = 'DEFAULT';
    alarm 10;
    while (<$client>) { last if /^\r?\n$/ }
    my $counts = qx(psql -qAtF ' ' -c 'select choice, count(*) from votes group by 1 order by 1');
    my $status = $? ? '503 Service Unavailable' : '200 OK';
    print $client "HTTP/1.0 $status\r\nContent-Type: text/plain\r\n\r\n$counts";
    exit;
}
