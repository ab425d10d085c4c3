//! What people type every day, as Docker Compose's documentation has it, word for word with both programs: the same exit codes
//! and the same effects on one host, and the same again where orch has three.

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::{Done, Host, ORCH};
use crate::looking::Reference;
use crate::registry::{RIGHT, serve};
use crate::wait::{becomes, secs};

const YAML: &str = "\
name: shop
services:
  front:
    build:
      context: app
      args: {WORD: front}
    image: ${REGISTRY}/team/front:1
    command: [httpd, -f, -h, /srv]
    stop_signal: SIGKILL
    ports: ['8080:80']
    networks: [outside, inside]
    configs: [{source: page, target: /srv/index.html}]
    depends_on: {web: {condition: service_started}}
    labels: {tier: front}
  web:
    build: app
    command: [httpd, -f, -h, /srv]
    stop_signal: SIGKILL
    env_file: web.env
    environment: {GREETING: '${GREETING:-hello}'}
    networks: [inside]
    secrets: [password]
    depends_on: {db: {condition: service_healthy}}
  db:
    image: busybox
    command: [sh, -c, 'echo ready; exec sleep 1000000']
    stop_signal: SIGKILL
    networks: [inside]
    volumes: ['data:/var/lib/db']
    healthcheck: {test: [CMD, test, -d, /var/lib/db], interval: 300ms, retries: 20}
  worker:
    image: busybox
    command: [sh, -c, 'echo working; exec sleep 1000000']
    stop_signal: SIGKILL
    volumes: ['scratch:/scratch']
  job:
    image: busybox
    command: [sh, -c, 'sleep 5; exit 3']
    restart: 'no'
    profiles: [jobs]
  tool:
    image: busybox
    entrypoint: [sh, -c]
    command: ['echo a tool']
    stop_signal: SIGKILL
    profiles: [tools]
networks: {outside: , inside: }
volumes: {data: , scratch: }
configs: {page: {file: ./page.html}}
secrets: {password: {file: ./password}}
";

/// Lines of `CODE[MARK] COMMAND`: what a command must end with, with both programs, and what is compared besides the state of the
/// project: `=` standard output, `~` its lines in any order. A line that begins with `$` is for the shell.
const SCRIPT: &str = "\
0 version
0 --help
0 config -q
0~ config --services
0~ config --volumes
0~ config --networks
0~ config --images
0~ --profile tools config --services
0~ --profile '*' config --profiles
1 config nobody
0 build
0 build --no-cache --quiet web
0 build --build-arg WORD=other front
1 build nobody
0 push front
0 push --ignore-push-failures
0 pull front
0 pull -q --policy missing front
1 pull nobody
0 create
0 ps -a
0 start db
0 up -d
0 up -d
0 up -d --wait
0 ps
0 ps -q
0~ ps --services
0~ ps --status running --services
0 ps --format json
1 ps nobody
0= port front 80
0= logs --no-log-prefix db
0= logs --no-log-prefix --tail 1 worker
0 logs -t --since 1h
1 logs nobody
0= exec -T web sh -c 'echo $GREETING $FROM_FILE'
0= exec -T web cat /run/secrets/password
0= exec -T -e A=1 -w /tmp -u 99 web sh -c 'echo $A $PWD; id -u'
0= exec -T -e GREETING web sh -c 'echo ${GREETING-none}'
7 exec -T web sh -c 'exit 7'
0 exec -d web touch /tmp/done
0= exec -T web ls /tmp
1 exec -T nobody true
0= exec -T front wget -q -O - http://web/word
0= exec -T front cat /srv/index.html
0 cp page.html web:/tmp/copied
0= exec -T web cat /tmp/copied
0 cp web:/tmp/copied back.html
$ cmp page.html back.html
1 cp nothing web:/tmp
0= run --rm tool
0= run --rm --no-deps -T -e A=b tool 'echo $A'
0= run --rm -e GREETING -e A tool 'echo ${GREETING-none} ${A-none}'
4 run --rm tool 'exit 4'
0= run --rm --entrypoint echo tool hi
1 run --rm nobody
0 top
0 top web
0 images
0 run -d --rm --name once tool 'sleep 2'
0 volumes
0~ volumes -q
0 stats --no-stream
0 ls
0 ls -a -q
0 up -d --scale web=3
0 ps web
0= exec -T --index 2 web sh -c 'echo $GREETING'
0 scale web=2 worker=2
0 up -d --scale web=1
0 up -d worker
0 stop worker
0 start worker
0 stop -t 1 front web
0 start
0 restart worker
0 restart -t 1 db
0 pause db
1 pause db
0 unpause db
0 kill -s HUP worker
0 kill worker
0 up -d
0 rm -f
0 rm -fs worker
0 up -d --no-deps worker
0 up -d --force-recreate worker
0 up -d --no-recreate
0 up -d --build
$ printf 'GREETING=other\\n' >>.env
0 up -d
0= exec -T web sh -c 'echo $GREETING'
$ printf 'ONLY=here\\n' >>.env
0= exec -T -e ONLY -e NOWHERE web sh -c 'echo ${ONLY-none} ${NOWHERE-none}'
0= run --rm -e ONLY -e NOWHERE tool 'echo ${ONLY-none} ${NOWHERE-none}'
$ echo 'services: {extra: {image: busybox, command: [sleep, \"1000000\"], stop_signal: SIGKILL}}' >extra.yaml
0 -f compose.yaml -f extra.yaml up -d
0 up -d
0 up -d --remove-orphans
0 --profile jobs up -d job
3 wait job
0 --profile jobs up -d job
0 --profile '*' stop
0 --profile '*' down
3 --profile jobs up --exit-code-from job job
0 --profile '*' down
0 up -d --no-start
0 up -d --wait --wait-timeout 60
0 up -d --quiet-pull
0 -f extra.yaml -p other up -d
0 -p other ps
0 -f extra.yaml -p other down -v
0 down
0 down
0 up -d
0 down -v --rmi local
1 start
0 ps -a
0 down --remove-orphans
";

/// The project's files in the directory `/root/shop` of a host.
fn files(host: &Host, registry: &str) {
    let write = |name: &str, text: &str| host.write(&format!("/root/shop/{name}"), text);
    write("compose.yaml", YAML);
    write(".env", &format!("REGISTRY={registry}\n"));
    write("web.env", "FROM_FILE=of a file\n");
    write("page.html", "a page\n");
    write("password", "a secret\n");
    write("app/Dockerfile", "FROM busybox\nARG WORD=web\nRUN mkdir /srv && echo $WORD >/srv/word\n");
}

/// What the engines of some hosts have of all projects of this test, without what is random: containers with state, exit code and
/// labels, networks and volumes. A container that goes away meanwhile is not in it.
fn state(hosts: &[&Host], registry: &str) -> Vec<String> {
    let containers = "docker ps -aq --filter label=com.docker.compose.project | xargs -r docker inspect -f \
        '{{.Name}} {{.State.Status}} {{.State.ExitCode}} \
        {{with .Config.Labels}}{{index . \"com.docker.compose.project\"}} {{index . \"com.docker.compose.service\"}} \
        {{index . \"com.docker.compose.container-number\"}} {{index . \"com.docker.compose.oneoff\"}} \
        {{index . \"tier\"}}{{end}} {{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}}:{{.Destination}} {{end}}{{end}}\
        {{range $name, $n := .NetworkSettings.Networks}}{{$name}} {{end}}' || true";
    let of_label = "--filter label=com.docker.compose.project --format";
    let networks = format!("docker network ls {of_label} 'network {{{{.Name}}}} {{{{.Driver}}}}'");
    let volumes = format!("docker volume ls {of_label} 'volume {{{{.Name}}}} {{{{.Driver}}}}'");
    let script = format!("{containers}; {networks}; {volumes}");
    let mut lines: Vec<String> = hosts
        .iter()
        .flat_map(|host| host.sh(&script).lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| line.replace(registry, "REGISTRY").trim_end().to_owned())
        .collect();
    lines.sort();
    lines.dedup();
    for line in &mut lines {
        without_number(line);
    }
    lines.sort();
    lines
}

/// When it scales down Docker Compose 2.40 keeps the replicas with the highest numbers, orch those with the lowest.
fn without_number(line: &mut String) {
    for number in ["1", "2", "3"] {
        if line.starts_with(&format!("/shop-web-{number} ")) {
            *line = line.replacen(&format!("-{number} "), "- ", 1).replacen(&format!(" web {number} "), " web ", 1);
        }
    }
}

/// A program with the hosts that it works on, and where it is run.
struct Side<'a> {
    desk: &'a Host,
    hosts: Vec<&'a Host>,
    program: String,
    registry: String,
}

impl Side<'_> {
    fn run(&self, command: &str) -> Done {
        let Self { desk, program, .. } = self;
        let script = format!("cd /root/shop && export DOCKER_BUILDKIT=0 && {program} {command}");
        let done = desk.exec(&["sh", "-c", &script]);
        Done { stdout: done.stdout.replace(&self.registry, "REGISTRY"), ..done }
    }

    fn state(&self) -> Vec<String> {
        state(&self.hosts, &self.registry)
    }
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Asks both at once.
fn both<T: Send>(ask: impl Fn(&Side<'_>) -> T + Sync, [ours, theirs]: [&Side<'_>; 2]) -> (T, T) {
    std::thread::scope(|scope| {
        let one = scope.spawn(|| ask(ours));
        let other = ask(theirs);
        (one.join().expect("it fails in the open"), other)
    })
}

/// Runs the script with both.
#[expect(clippy::redundant_closure_for_method_calls, reason = "the method itself has too few lifetimes")]
fn same(ours: &Side<'_>, theirs: &Side<'_>) {
    let mut failures = Vec::new();
    let mut commands = 0;
    for line in SCRIPT.lines() {
        if let Some(shell) = line.strip_prefix('$') {
            for side in [ours, theirs] {
                side.desk.sh(&format!("cd /root/shop; {shell}"));
            }
            continue;
        }
        commands += 1;
        let (head, command) = line.split_once(' ').expect("a code and a command");
        let code: i32 = head.trim_end_matches(['=', '~']).parse().expect("a code");
        let (one, other) = both(|side| side.run(command), [ours, theirs]);
        if (one.code, other.code) != (code, code) {
            failures.push(format!("{line}: {} and {}\n{one:?}\n{other:?}", one.code, other.code));
        }
        let differs = match head.chars().last() {
            Some('=') => one.stdout != other.stdout,
            Some('~') => sorted(&one.stdout) != sorted(&other.stdout),
            _ => false,
        };
        if differs {
            failures.push(format!("{line}\n{}\n---\n{}", one.stdout, other.stdout));
        }
        // What runs to its end by itself may do so a moment later on one side.
        let mut seen = (Vec::new(), Vec::new());
        for _ in 0..40 {
            seen = both(|side| side.state(), [ours, theirs]);
            if seen.0 == seen.1 {
                break;
            }
        }
        if seen.0 != seen.1 {
            failures.push(format!("{line}\n{}\n---\n{}\n{one:?}\n{other:?}", seen.0.join("\n"), seen.1.join("\n")));
        }
    }
    assert!(commands > 90, "only {commands} commands");
    assert!(failures.is_empty(), "{} lines differ\n{}", failures.len(), failures.join("\n\n"));
}

fn reference(host: &Host) -> Side<'_> {
    let registry = serve(host);
    files(host, &registry);
    let program = Reference::on(host, "shop").program().to_owned();
    Side { desk: host, hosts: vec![host], program, registry }
}

#[test]
fn a_hundred_everyday_commands_do_what_docker_composes_do() {
    let (host, other) = (Host::boot(&["busybox"]), Host::boot(&["busybox"]));
    let registry = serve(&host);
    files(&host, &registry);
    let ours = Side { desk: &host, hosts: vec![&host], program: ORCH.to_owned(), registry };
    same(&ours, &reference(&other));
}

#[test]
fn everyday_commands_work_the_same_over_three_hosts() {
    let (cluster, other) = (Cluster::boot(3, &["busybox"]), Host::boot(&["busybox"]));
    let registry = serve(&cluster[1]);
    add(&cluster, &[1, 2, 3]).ok();
    let desk = &cluster.desk;
    desk.write("/root/.docker/config.json", &format!(r#"{{"auths": {{"{registry}": {{"auth": "{RIGHT}"}}}}}}"#));
    files(desk, &registry);
    let hosts = cluster.nodes().iter().collect();
    let ours = Side { desk, hosts, program: ORCH.to_owned(), registry };
    same(&ours, &reference(&other));
    becomes(secs(20), "nothing is left", &Vec::<String>::new(), || ours.state());
}
