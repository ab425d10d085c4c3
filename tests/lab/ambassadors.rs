//! Stand-ins inside pods: they are there before the application, they follow what they lead to, and they go with their pod.

use std::fmt::Write as _;

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::{Done, Host};
use crate::project::Project;
use crate::wait::{becomes, eventually, secs};

/// An application that asks its own loopback address at its very start, and a service that answers.
const YAML: &str = "\
services:
  app:
    image: busybox
    init: true
    command: [sh, -c, 'timeout 5 wget -q -O - http://127.0.0.1:8000/ > /first 2>&1; exec sleep 1000000']
    x-ambassadors: {back: {listen: 8000, to: ['web:80']}}
    depends_on: {web: {condition: service_started}}
  web: {<<: *web, deploy: {replicas: 2}}
";

impl Project<'_> {
    fn ask(&self, container: &str, port: u16) -> Done {
        self.within(container, &format!("timeout 5 wget -q -O - http://127.0.0.1:{port}/"))
    }

    #[track_caller]
    fn answers(&self, container: &str, port: u16) -> String {
        eventually(secs(10), "an answer inside the pod", || {
            let done = self.ask(container, port);
            if done.code == 0 { Ok(done.stdout) } else { Err(done.stderr) }
        })
    }
}

#[test]
fn an_ambassador_is_there_before_the_application_and_after_whatever_ends() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "amb", YAML);
    project.up();
    assert!(project.within("amb-app-1", "cat /first").ok().contains("Hostname:"), "it answered at the very start");
    assert_eq!(project.answering("amb-app-1", "http://127.0.0.1:8000/", 10), project.running("web"));
    for trouble in [
        "docker kill amb-app-1",
        "docker kill amb-app-1-pod",
        "docker rm -f amb-app-1-pod",
        "kill -9 $(docker inspect -f {{.State.Pid}} orch-agent)",
        "docker kill amb-web-1",
    ] {
        host.sh(trouble);
        project.answers("amb-app-1", 8000);
    }
    // Another target takes effect without a new container.
    let made = project.inspect("amb-app-1", "{{.Id}}");
    project.rewrite(&YAML.replace("'web:80'", "'203.0.113.1:80'"));
    project.orch(&["up", "-d"]).ok();
    eventually(secs(15), "nobody answers there", || {
        let done = project.ask("amb-app-1", 8000);
        if done.code == 0 { Err(done.stdout) } else { Ok(()) }
    });
    assert_eq!(project.inspect("amb-app-1", "{{.Id}}"), made);
    project.down();
}

#[test]
fn what_other_projects_export_is_reached_by_ambassadors_and_links_and_nothing_else_is() {
    let host = Host::boot(&["busybox"]);
    let back = Project::new(&host, "back", "services:\n  web: {<<: *web, x-export: 80}\n  private: *web\n");
    back.up();
    let front = Project::new(
        &host,
        "front",
        "\
services:
  app:
    <<: *client
    x-ambassadors:
      open: {listen: 8001, to: ['back/web:80']}
      closed: {listen: 8002, to: ['back/private:80'], retries: 0, timeout: 500ms}
      other-port: {listen: 8003, to: ['back/web:81'], retries: 0, timeout: 500ms}
  linked: {<<: *client, external_links: ['back/web:shop', 'back-private-1:secret']}
  plain: *client
",
    );
    let up = front.orch(&["up", "-d"]);
    for warning in [
        "warning: ambassador `closed` of service `app` leads to `back/private:80` (",
        "compose.yaml:8:35), and nobody is there: service `private` of project `back` exports nothing; `x-export: 80` at that service",
        "`other-port` of service `app` leads to `back/web:81` (",
        "service `web` of project `back` exports 80 only",
        "warning: service `linked` links to `back/private` as `secret` (",
    ] {
        assert!(up.stderr.contains(warning), "{warning}: {}", up.stderr);
    }
    assert!(!up.stderr.contains("`open`"), "{}", up.stderr);
    up.ok();
    assert_eq!(front.answering("front-app-1", "http://127.0.0.1:8001/", 3), back.running("web"));
    assert_eq!(front.answering("front-linked-1", "http://shop/", 3), back.running("web"));
    for refused in ["http://127.0.0.1:8002/", "http://127.0.0.1:8003/"] {
        let done = front.within("front-app-1", &format!("timeout 5 wget -q -O - {refused}"));
        assert_ne!(done.code, 0, "{refused} answers: {}", done.stdout);
    }
    let secret = front.within("front-linked-1", "timeout 8 wget -q -O - http://secret/");
    assert_ne!(secret.code, 0, "what is not exported answers: {}", secret.stdout);
    assert_ne!(front.within("front-plain-1", "nslookup shop").code, 0, "a link is the linking service's only");
    let told = |args: &[&str]| front.orch(args).ok();
    let why = told(&["why", "linked"]);
    assert!(
        why.contains("! service `linked` links to `back/private` as `secret` (") && why.contains("x-export"),
        "{why}"
    );
    assert!(!why.contains("`back/web`"), "{why}");
    let closed = told(&["why", "app"]);
    assert!(closed.contains("! ambassador `closed` of service `app` leads to `back/private:80` ("), "{closed}");
    let shop = told(&["dns", "shop", "--from", "linked"]);
    assert!(shop.contains("an external link of this service to `back/web`, behind which 1 pod is ready"), "{shop}");
    let secret = told(&["dns", "secret", "--from", "linked"]);
    assert!(secret.contains("to `back/private`, behind which nothing stands: service `private` of"), "{secret}");
    let table = told(&["lb", "--no-stream", "app"]);
    let row = |name: &str| table.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
    assert!(row("app.1 closed →").contains("no endpoint") && row("app.1 open →").contains("ready"), "{table}");
    // It follows the other project, also over its end.
    back.orch(&["up", "-d", "--force-recreate", "web"]).ok();
    becomes(secs(10), "the new pod answers", &back.running("web"), || {
        let done = front.ask("front-app-1", 8001);
        crate::project::host_names(&done.stdout)
    });
}

#[test]
fn an_ambassador_leads_to_other_hosts_and_to_the_next_target_when_one_is_lost() {
    let cluster = Cluster::boot(3, &["busybox"]);
    add(&cluster, &[1, 2, 3]).ok();
    let yaml = "\
services:
  app:
    <<: *client
    deploy: {placement: {constraints: [node.hostname == node1]}}
    x-ambassadors: {back: {listen: 8000, to: ['first:80', 'second:80'], timeout: 500ms}}
  first: {<<: *web, deploy: {placement: {constraints: [node.hostname == node2]}}}
  second: {<<: *web, deploy: {placement: {constraints: [node.hostname == node3]}}}
";
    let project = Project::new(&cluster.desk, "far", yaml);
    project.orch(&["up", "-d", "--wait"]).ok();
    let ask = || {
        let done = cluster[1].exec(&[
            "docker",
            "exec",
            "far-app-1",
            "timeout",
            "5",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:8000/",
        ]);
        crate::project::host_names(&done.stdout)
    };
    let of = |number: usize, service: &str| {
        let name = format!("far-{service}-1");
        std::iter::once(cluster[number].docker(&["inspect", "-f", "{{.Config.Hostname}}", &name])).collect()
    };
    becomes(secs(5), "the first target answers, on another host", &of(2, "first"), ask);
    cluster[2].power_off();
    becomes(secs(10), "the second one takes over", &of(3, "second"), ask);
}

/// The only host of a service is lost: its row stays, with the reason, and the ambassador to it does not look as if it was well.
#[test]
fn what_is_lost_with_its_host_is_told_by_the_table_and_by_who_leads_to_it() {
    let cluster = Cluster::boot(2, &["busybox"]);
    add(&cluster, &[1, 2]).ok();
    let yaml = "\
services:
  app:
    <<: *client
    deploy: {placement: {constraints: [node.hostname == node1]}}
    x-ambassadors: {back: {listen: 8000, to: 'web:80'}}
  web: {<<: *web, ports: ['8080:80'], deploy: {placement: {constraints: [node.hostname == node2]}}}
";
    let project = Project::new(&cluster.desk, "lost", yaml);
    project.orch(&["up", "-d", "--wait"]).ok();
    let table = || project.orch(&["lb", "--no-stream"]).ok();
    let row = |table: &str, name: &str| {
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.find(|line| line.starts_with(name)).unwrap_or_default()
    };
    let before = table();
    assert!(
        row(&before, "web ").contains("1 ready") && row(&before, "app.1 back → web:80").contains("ready"),
        "{before}"
    );
    cluster[2].power_off();
    let after = eventually(secs(30), "the host to be missed", || {
        let table = table();
        if row(&table, "web ").contains("0 ready: host `b` does not answer") { Ok(table) } else { Err(table) }
    });
    assert!(row(&after, "web 8080->80/tcp a -").contains("0 ready"), "{after}");
    assert!(row(&after, "app.1 back 127.0.0.1:8000").contains("listening, no endpoint"), "{after}");
    assert!(row(&after, "app.1 back → web:80").contains("no endpoint"), "{after}");
    let why = project.orch(&["why", "app"]).ok();
    let text = "! ambassador `back` of service `app` leads to `web:80`, and nobody is there: host `b` does not answer";
    assert!(why.contains(text), "{why}");
    cluster[2].power_on();
    eventually(secs(40), "all is well again", || {
        let table = table();
        let is_well = row(&table, "web ").contains("1 ready") && !table.contains("no endpoint");
        if is_well { Ok(()) } else { Err(table) }
    });
    project.down();
}

/// A program at a port that an ambassador of its pod has, at all addresses or at one: what nobody can see in the file.
#[test]
fn who_cannot_have_his_port_is_told_which_ambassador_has_it() {
    let host = Host::boot(&["busybox", "nginx"]);
    let yaml = "\
services:
  all: {image: nginx, x-ambassadors: {back: {listen: '0.0.0.0:80', to: 'web:80'}}}
  one: {image: nginx, x-ambassadors: {front: {listen: 80, to: 'web:80'}}}
  quick: {image: busybox, command: [httpd, -f, -p, '80'], x-ambassadors: {only: {listen: 80, to: 'web:80'}}}
  web: *web
";
    let project = Project::new(&host, "taken", yaml);
    // It ends with who fails at once; nginx tries for some seconds.
    let up = project.orch(&["up", "-d", "--wait"]);
    assert_ne!(up.code, 0, "{up:?}");
    let quick = "container taken-quick-1 cannot have its port: ";
    assert!(up.stderr.contains(quick) && up.stderr.contains("ambassador `only` has port 80 (127.0.0.1:80)"), "{up:?}");
    for (service, has) in [
        ("all", "ambassador `back` has port 80 (0.0.0.0:80) in this pod"),
        ("one", "ambassador `front` has port 80 (127.0.0.1:80) in this pod"),
        ("quick", "in this pod ambassador `only` has port 80 (127.0.0.1:80): is that the port that it wants?"),
    ] {
        let text = format!("! container taken-{service}-1 cannot have its port: {has}");
        eventually(secs(20), "it is told", || {
            let told = project.orch(&["why", service]).ok();
            if told.contains(&text) { Ok(()) } else { Err(told) }
        });
    }
    project.down();
}

/// An ambassador with an image is a container of the pod, which is there before the application.
#[test]
fn an_ambassador_may_be_an_image_of_the_users_own() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  app:
    image: busybox
    init: true
    command: [sh, -c, 'timeout 5 wget -q -O - http://127.0.0.1:8000/ > /first 2>&1; exec sleep 1000000']
    x-ambassadors:
      back:
        image: orch/demo
        command: [web, --port, '8000', --name, stand-in]
        x-probe: {tcp: 8000, interval: 200ms}
";
    let project = Project::new(&host, "image", yaml);
    project.up();
    eventually(secs(15), "what it answered at the very start", || {
        let first = project.within("image-app-1", "cat /first").ok();
        if first.contains("stand-in") { Ok(()) } else { Err(first) }
    });
    let answers = || project.ask("image-app-1", 8000).stdout.contains("stand-in");
    assert!(answers());
    host.docker(&["kill", "image-app-1-back"]);
    becomes(secs(10), "it is back", &true, answers);
    host.docker(&["kill", "image-app-1"]);
    becomes(secs(10), "the application finds it again", &true, answers);
    project.down();
}

/// Makes an authority (`ca.pem`), and certificates of it with their keys in one file each, below a folder of the host.
pub(crate) fn certificates(host: &Host, folder: &str, names: &[&str]) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 30";
    let mut script = format!(
        "set -e; mkdir -p {folder}; cd {folder}\n\
         [ -e ca.pem ] || openssl req -x509 {key} -subj /CN=authority -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem\n"
    );
    for name in names {
        write!(
            script,
            "openssl req {key} -subj '/CN={name}' -keyout '{name}.key' -out '{name}.csr'\n\
             printf 'subjectAltName=DNS:{name}\\nextendedKeyUsage=serverAuth,clientAuth\\n' > '{name}.ext'\n\
             openssl x509 -req -in '{name}.csr' -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -sha256 -extfile '{name}.ext' -out '{name}.crt'\n\
             cat '{name}.crt' '{name}.key' > '{name}.pem'\n"
        )
        .expect("a string takes all");
    }
    let done = host.exec(&["sh", "-c", &script]);
    assert_eq!(done.code, 0, "{done:?}");
}

/// The far side asks for a certificate, and the ambassador shows the one of the file; the application speaks plainly.
#[test]
fn an_ambassador_shows_its_certificate_to_a_far_side_that_asks_for_one() {
    let host = Host::boot(&["busybox", "nginx"]);
    certificates(&host, "/root/mtls", &["bank.example.com", "shop-client"]);
    let server = "server { listen 8443 ssl; ssl_certificate /run/secrets/bank; ssl_certificate_key /run/secrets/bank; \
                  ssl_client_certificate /authority; ssl_verify_client on; \
                  location / { return 200 \"hello $ssl_client_s_dn\\n\"; } }";
    let tls = "{server_name: bank.example.com, ca: authority, cert: shop, key: shop}";
    let yaml = format!(
        "\
services:
  app:
    <<: *client
    x-ambassadors:
      bank: {{listen: 8000, to: 'bank:8443', tls: {tls}, retries: 0}}
      bare: {{listen: 8001, to: 'bank:8443', tls: {{server_name: bank.example.com, ca: authority}}, retries: 0}}
      wrong: {{listen: 8002, to: 'bank:8443', tls: {{server_name: other.example.com, ca: authority, cert: shop, key: shop}}, retries: 0}}
  bank:
    image: nginx
    configs: [{{source: site, target: /etc/nginx/conf.d/default.conf}}, {{source: authority, target: /authority}}]
    secrets: [bank]
configs:
  site: {{content: '{}'}}
  authority: {{file: ./ca.pem}}
secrets:
  bank: {{file: ./bank.example.com.pem}}
  shop: {{file: ./shop-client.pem}}
",
        server.replace('$', "$$")
    );
    let project = Project::new(&host, "mtls", &yaml);
    project.up();
    assert_eq!(project.answers("mtls-app-1", 8000).trim(), "hello CN=shop-client");
    let bare = project.ask("mtls-app-1", 8001);
    assert!(!bare.stdout.contains("hello"), "without a certificate: {bare:?}");
    let wrong = project.ask("mtls-app-1", 8002);
    assert!(wrong.code != 0 && !wrong.stdout.contains("hello"), "under another name: {wrong:?}");
    let told = project.orch(&["why", "app"]).ok();
    assert!(told.contains("ambassador `wrong` of `app.1`") && !told.contains("ambassador `bank`"), "{told}");
    let table = project.orch(&["lb", "--no-stream"]).ok();
    assert!(table.contains("app.1 bank → bank:8443") && table.contains("127.0.0.1:8000"), "{table}");
    project.down();
}

/// Makes a certificate that its server signed for itself, as people do it in one line, and one of the authority that has ended.
fn odd_certificates(host: &Host, folder: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256";
    let script = format!(
        "set -e; cd {folder}\n\
         openssl req -x509 {key} -days 30 -subj /CN=itself -addext subjectAltName=DNS:itself.example.com -keyout itself.key -out itself.crt\n\
         cat itself.crt itself.key > itself.pem\n\
         printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\nserial=number\\nnew_certs_dir=.\\ndefault_md=sha256\\npolicy=p\\n\
         certificate=ca.pem\\nprivate_key=ca.key\\n[p]\\ncommonName=supplied\\n' > ca.cnf\n\
         touch index; echo 77 > number\n\
         openssl req {key} -subj /CN=ended -keyout ended.key -out ended.csr\n\
         printf 'subjectAltName=DNS:bank.example.com\\n' > ended.ext\n\
         openssl ca -config ca.cnf -batch -notext -in ended.csr -out ended.crt -extfile ended.ext -startdate 20200101000000Z -enddate 20200203000000Z\n\
         cat ended.crt ended.key > ended.pem\n"
    );
    let done = host.exec(&["sh", "-c", &script]);
    assert_eq!(done.code, 0, "{done:?}");
}

/// A server as people have them: whom it is trusted by, and what they read who do not trust it.
#[test]
fn a_far_side_over_tls_is_trusted_or_it_is_said_why_not() {
    let host = Host::boot(&["busybox", "nginx"]);
    certificates(&host, "/root/far", &["bank.example.com"]);
    odd_certificates(&host, "/root/far");
    let server = |port: u16, secret: &str| {
        format!(
            "server {{ listen {port} ssl; ssl_certificate /run/secrets/{secret}; ssl_certificate_key /run/secrets/{secret}; \
             location / {{ return 200 \"{secret}\"; }} }} "
        )
    };
    let site =
        format!("{}{}{}server {{ listen 8080; }}", server(8443, "bank"), server(8444, "itself"), server(8445, "ended"));
    let yaml = format!(
        "\
services:
  app:
    <<: *client
    x-ambassadors:
      signed: {{listen: 8000, to: 'bank:8443', tls: {{server_name: bank.example.com, ca: authority}}, retries: 0}}
      pinned: {{listen: 8001, to: 'bank:8444', tls: {{server_name: itself.example.com, ca: alone}}, retries: 0}}
      other: {{listen: 8002, to: 'bank:8443', tls: {{server_name: other.example.com, ca: authority}}, retries: 0}}
      unnamed: {{listen: 8003, to: 'bank:8443', tls: {{ca: authority}}, retries: 0}}
      stranger: {{listen: 8004, to: 'bank:8443', tls: {{server_name: bank.example.com, ca: alone}}, retries: 0}}
      itself: {{listen: 8005, to: 'bank:8444', tls: {{server_name: itself.example.com, ca: authority}}, retries: 0}}
      ended: {{listen: 8006, to: 'bank:8445', tls: {{server_name: bank.example.com, ca: authority}}, retries: 0}}
      plain: {{listen: 8007, to: 'bank:8080', tls: {{server_name: bank.example.com, ca: authority}}, retries: 0}}
  bank:
    image: nginx
    configs: [{{source: site, target: /etc/nginx/conf.d/default.conf}}]
    secrets: [bank, itself, ended]
configs:
  site: {{content: '{site}'}}
  authority: {{file: ./ca.pem}}
  alone: {{file: ./itself.crt}}
secrets:
  bank: {{file: ./bank.example.com.pem}}
  itself: {{file: ./itself.pem}}
  ended: {{file: ./ended.pem}}
"
    );
    let project = Project::new(&host, "far", &yaml);
    project.up();
    assert_eq!(project.answers("far-app-1", 8000), "bank");
    assert_eq!(project.answers("far-app-1", 8001), "itself");
    for port in 8002..=8007 {
        let done = project.ask("far-app-1", port);
        assert_ne!(done.code, 0, "{port}: {done:?}");
    }
    let told = project.orch(&["why", "app"]).ok();
    for (name, words) in [
        ("other", "no TLS with `other.example.com`: its certificate is for bank.example.com"),
        ("unnamed", "no TLS with `bank`: its certificate is for bank.example.com"),
        ("stranger", "its certificate is neither in `ca` nor signed by one in there"),
        ("itself", "its certificate is an authority's own, which is trusted only where it is itself in `ca`"),
        ("ended", "its certificate has ended at 2020-02-03T00:00:00Z; it is "),
        ("plain", "what it answers is no TLS"),
    ] {
        let line =
            told.lines().find(|line| line.contains(&format!("ambassador `{name}` of `app.1`"))).unwrap_or_default();
        assert!(line.contains(words), "{name}: {words} in {told}");
    }
    assert!(!told.contains("`signed`") && !told.contains("`pinned`"), "{told}");
    // What can be known before anything is made is refused.
    project.rewrite(&yaml.replacen("ca: authority", "ca: site", 1));
    let place = "compose.yaml:7:84";
    project
        .orch(&["up", "-d"])
        .refused(1, &["authorities cannot be used: the file holds no certificate in PEM", place]);
    project.rewrite(&yaml);
    project.down();
}
