//! The user's logins to registries, as `docker login` keeps them: read here, sent along with a pull, and kept nowhere.
//!
//! What a credential helper is asked goes over its standard input and output, so that no secret is ever an argument.
//! Start at [`Logins::find`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::engine::RegistryLogin;

/// Key of Docker Hub's login, for references without a registry. Source: docker/cli, `registry.IndexServer`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Longest that a helper may take: it may ask the user.
const HELPER_WITHIN: Duration = Duration::from_mins(2);
/// A helper's words for "none". Source: docker/docker-credential-helpers, credentials/error.go.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// A helper's user name where the secret is an identity token. Source: docker/cli, `tokenUsername`.
const TOKEN_USER: &str = "<token>";

/// The logins of one user.
#[derive(Default)]
pub struct Logins {
    config: Config,
    /// Directories in which helpers are looked for; `None`: those of `PATH`.
    helpers: Option<PathBuf>,
    /// By registry: a helper is asked once.
    found: Mutex<BTreeMap<String, Option<RegistryLogin>>>,
    /// Why there is no configuration although there is a file.
    broken: Option<String>,
    /// What could not be read, for the user.
    problems: std::sync::Mutex<Vec<String>>,
}

/// The parts of `config.json` that are about logins.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Logins {
    /// Reads the user's configuration of Docker: `config.json` in `DOCKER_CONFIG`, else in `~/.docker`. `variable` looks
    /// up the process environment. No file: no logins.
    pub fn of_user(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
        let Some(path) = directory.map(|directory| directory.join("config.json")) else { return Self::default() };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => return Self::unreadable(&format!("`{}` cannot be read: {error}", path.display())),
        };
        match serde_json::from_slice(&text) {
            Ok(config) => Self { config, ..Self::default() },
            // Only the place: serde's words may repeat a part of what it read.
            Err(error) => Self::unreadable(&format!(
                "`{}` is no configuration of Docker at line {}, column {}",
                path.display(),
                error.line(),
                error.column()
            )),
        }
    }

    fn unreadable(problem: &str) -> Self {
        let problems = vec![format!("{problem}; images are pulled without a login")];
        Self { broken: Some(problem.to_owned()), problems: std::sync::Mutex::new(problems), ..Self::default() }
    }

    /// Returns the login for the registry of an image, if the user has one.
    pub async fn find(&self, reference: &str) -> Option<RegistryLogin> {
        let registry = registry_of(reference);
        let mut found = self.found.lock().await;
        if let Some(login) = found.get(registry) {
            return login.clone();
        }
        let login = self.look(registry).await;
        found.insert(registry.to_owned(), login.clone());
        login
    }

    /// Returns what could not be read since the last time, for the user.
    pub fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut *self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Returns a `config.json` with all logins of the user and without helpers, which only this machine has; and what could not be
    /// had, for the user.
    ///
    /// # Errors
    /// The user's configuration, or the helper that keeps all logins, cannot be read.
    ///
    /// Source: docker/cli, `cli/config/configfile/file.go`, `GetAllCredentials` and `SaveToWriter`.
    pub async fn config(&self) -> Result<(Vec<u8>, Vec<String>), String> {
        if let Some(problem) = &self.broken {
            return Err(problem.clone());
        }
        let mut all: BTreeMap<String, RegistryLogin> = BTreeMap::new();
        let mut lacking = Vec::new();
        if let Some(store) = self.config.creds_store.as_deref().filter(|name| !name.is_empty()) {
            let of_store = |problem: String| format!("`docker-credential-{store}`: {problem}");
            for registry in self.list(store).await.map_err(of_store)? {
                if let Some(login) = self.ask(store, &registry).await.map_err(of_store)? {
                    all.insert(registry, login);
                }
            }
        } else {
            let keys = self.config.auths.keys();
            all.extend(keys.filter_map(|registry| Some((registry.clone(), self.in_file(registry)?))));
        }
        for (registry, helper) in &self.config.cred_helpers {
            match self.ask(helper, registry).await {
                Ok(login) => all.extend(login.map(|login| (registry.clone(), login))),
                Err(problem) => lacking.push(format!(
                    "the login for `{registry}` cannot be had from `docker-credential-{helper}`: {problem}; containers with \
                     `use_api_socket` do without it"
                )),
            }
        }
        Ok((written(&all), lacking))
    }

    async fn look(&self, registry: &str) -> Option<RegistryLogin> {
        // Source: docker/cli, cli/config/configfile/file.go, `getConfiguredCredentialStore`.
        let helper = self.config.cred_helpers.get(registry).or(self.config.creds_store.as_ref());
        let Some(helper) = helper.filter(|name| !name.is_empty()) else { return self.in_file(registry) };
        match self.ask(helper, registry).await {
            Ok(login) => login,
            Err(problem) => {
                let problem = format!(
                    "the login for `{registry}` cannot be had from `docker-credential-{helper}`: {problem}; images are \
                     pulled without it"
                );
                self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(problem);
                None
            }
        }
    }

    /// Source: docker/cli, `cli/config/credentials/file_store.go`: the key as it is, else the one of that host name.
    fn in_file(&self, registry: &str) -> Option<RegistryLogin> {
        let auths = &self.config.auths;
        let of_host = || auths.iter().find(|(key, _)| host_of(key) == host_of(registry)).map(|(_, entry)| entry);
        let entry = auths.get(registry).or_else(of_host)?;
        let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((username, password)) => (username.to_owned(), password.trim_end_matches('\0').to_owned()),
            None => (entry.username.clone(), entry.password.clone()),
        };
        let login = RegistryLogin {
            registry: registry.to_owned(),
            username,
            password,
            identity_token: entry.identitytoken.clone(),
            registry_token: entry.registrytoken.clone(),
        };
        (!login.is_empty()).then_some(login)
    }

    /// Runs the user's own program. Its name comes from the user's file, as that of `ssh` does from the user's `PATH`.
    async fn run(&self, helper: &str, verb: &str, input: &str) -> Result<Output, String> {
        if helper.contains('/') {
            return Err("its name is none".to_owned());
        }
        let name = format!("docker-credential-{helper}");
        let program = self.helpers.as_ref().map_or_else(|| PathBuf::from(&name), |directory| directory.join(&name));
        let answer = tokio::time::timeout(HELPER_WITHIN, run(program, verb, input)).await;
        answer.map_err(|_| "it does not answer".to_owned())?.map_err(|error| error.to_string())
    }

    /// Returns the registries that a helper has logins for.
    async fn list(&self, helper: &str) -> Result<Vec<String>, String> {
        let output = self.run(helper, "list", "").await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let users: BTreeMap<String, String> =
            serde_json::from_slice(&output.stdout).map_err(|_| "its answer is not understood".to_owned())?;
        Ok(users.into_keys().collect())
    }

    async fn ask(&self, helper: &str, registry: &str) -> Result<Option<RegistryLogin>, String> {
        let output = self.run(helper, "get", registry).await?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let said = said.trim();
            return if said.contains(NOT_FOUND) { Ok(None) } else { Err(said.to_owned()) };
        }
        let Answer { username, secret } =
            serde_json::from_slice(&output.stdout).map_err(|_| "its answer is not understood".to_owned())?;
        let is_token = username == TOKEN_USER;
        let (password, identity_token) = if is_token { (String::new(), secret) } else { (secret, String::new()) };
        let username = if is_token { String::new() } else { username };
        let registry = registry.to_owned();
        let login = RegistryLogin { registry, username, password, identity_token, registry_token: String::new() };
        Ok((!login.is_empty()).then_some(login))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where credential helpers are started")]
async fn run(program: PathBuf, verb: &str, input: &str) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read what it is asked says why in its answer.
        stdin.write_all(input.as_bytes()).await.ok();
    }
    child.wait_with_output().await
}

/// Returns logins as Docker's client writes them.
fn written(logins: &BTreeMap<String, RegistryLogin>) -> Vec<u8> {
    let entry = |login: &RegistryLogin| {
        let RegistryLogin { registry: _, username, password, identity_token, registry_token } = login;
        let mut entry = serde_json::Map::new();
        if !(username.is_empty() && password.is_empty()) {
            entry.insert("auth".to_owned(), STANDARD.encode(format!("{username}:{password}")).into());
        }
        for (key, token) in [("identitytoken", identity_token), ("registrytoken", registry_token)] {
            if !token.is_empty() {
                entry.insert(key.to_owned(), token.clone().into());
            }
        }
        serde_json::Value::Object(entry)
    };
    let auths: serde_json::Map<_, _> =
        logins.iter().map(|(registry, login)| (registry.clone(), entry(login))).collect();
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, format);
    // Text alone: it cannot fail.
    serde::Serialize::serialize(&serde_json::json!({ "auths": auths }), &mut writer).ok();
    text
}

/// Returns the key under which the login for an image is kept.
///
/// The first part of a reference is a registry where it has a point or a colon, or is `localhost`.
/// Source: distribution/reference, `splitDockerDomain`.
fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) => DOCKER_HUB,
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

/// Returns the name that users know a registry by.
pub fn registry_name(reference: &str) -> &str {
    let registry = registry_of(reference);
    if registry == DOCKER_HUB { "docker.io" } else { registry }
}

/// `https://registry.example/v1/` and `registry.example` are one.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn logins(config: &str) -> Logins {
        Logins { config: serde_json::from_str(config).expect("a configuration"), ..Logins::default() }
    }

    async fn check(logins: &Logins, reference: &str, expected: Option<(&str, &str, &str)>) {
        let login = logins.find(reference).await;
        let login = login.as_ref();
        let found = login.map(|one| (one.username.as_str(), one.password.as_str(), one.identity_token.as_str()));
        assert_eq!(found, expected, "{reference}");
    }

    #[test]
    fn references_name_their_registry() {
        for (reference, registry) in [
            ("nginx", DOCKER_HUB),
            ("library/nginx:1", DOCKER_HUB),
            ("docker.io/me/app", DOCKER_HUB),
            ("localhost/app", "localhost"),
            ("localhost:5000/app:1", "localhost:5000"),
            ("registry.example/team/app@sha256:00", "registry.example"),
        ] {
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
        assert_eq!(registry_name("nginx"), "docker.io");
    }

    #[tokio::test]
    async fn logins_of_the_file_are_found_by_key_or_host_name() {
        // `me:se:cret`, as `docker login` writes it.
        let logins = logins(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "bWU6c2U6Y3JldA=="},
                "https://old.example/v1/": {"username": "old", "password": "word"},
                "token.example": {"auth": "bWU6", "identitytoken": "t0ken"},
                "empty.example": {}
            }, "psFormat": "x"}"#,
        );
        check(&logins, "nginx", Some(("me", "se:cret", ""))).await;
        check(&logins, "old.example/app", Some(("old", "word", ""))).await;
        check(&logins, "token.example/app", Some(("me", "", "t0ken"))).await;
        check(&logins, "empty.example/app", None).await;
        check(&logins, "other.example/app", None).await;
        assert!(logins.take_problems().is_empty());
    }

    #[tokio::test]
    async fn helpers_are_asked_once_and_what_they_cannot_say_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let script = "#!/bin/sh\nread -r registry; echo \"$1 $registry\" >>\"$(dirname \"$0\")/asked\"
case $registry in
a.example) echo '{\"ServerURL\":\"a.example\",\"Username\":\"me\",\"Secret\":\"word\"}';;
t.example) echo '{\"ServerURL\":\"t.example\",\"Username\":\"<token>\",\"Secret\":\"t0ken\"}';;
n.example) echo 'credentials not found in native keychain'; exit 1;;
*) echo 'the keychain is locked'; exit 1;;
esac\n";
        let program = directory.path().join("docker-credential-mine");
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a program");
        let config = r#"{"credsStore": "mine", "credHelpers": {"g.example": "gone", "p.example": "../p"},
            "auths": {"a.example": {"auth": "bm90OnRoaXM="}}}"#;
        let logins = Logins { helpers: Some(directory.path().to_owned()), ..logins(config) };
        for _ in 0..2 {
            check(&logins, "a.example/app", Some(("me", "word", ""))).await;
        }
        check(&logins, "t.example/app", Some(("", "", "t0ken"))).await;
        check(&logins, "n.example/app", None).await;
        assert!(logins.take_problems().is_empty());
        for (reference, why) in [
            ("l.example/app", "the keychain is locked"),
            ("g.example/app", "No such file"),
            ("p.example/app", "its name is none"),
        ] {
            check(&logins, reference, None).await;
            let problems = logins.take_problems();
            assert!(matches!(problems.as_slice(), [one] if one.contains(why)), "{problems:?}");
        }
        let asked = std::fs::read_to_string(directory.path().join("asked")).expect("it was asked");
        assert_eq!(asked, "get a.example\nget t.example\nget n.example\nget l.example\n");
    }

    #[tokio::test]
    async fn all_logins_are_written_down_without_the_helpers() {
        let directory = tempfile::tempdir().expect("a directory");
        let script = "#!/bin/sh\n[ $1 = list ] && { echo '{\"a.example\":\"me\",\"t.example\":\"<token>\"}'; exit; }
read -r registry
case $registry in
a.example) echo '{\"ServerURL\":\"a.example\",\"Username\":\"me\",\"Secret\":\"word\"}';;
t.example) echo '{\"ServerURL\":\"t.example\",\"Username\":\"<token>\",\"Secret\":\"t0ken\"}';;
*) echo 'the keychain is locked'; exit 1;;
esac\n";
        let program = directory.path().join("docker-credential-mine");
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a program");
        let with = |config: &str| Logins { helpers: Some(directory.path().to_owned()), ..logins(config) };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let (none, lacking) = with("{}").config().await.expect("read");
        assert_eq!((text(none).as_str(), lacking.len()), ("{\n\t\"auths\": {}\n}", 0));
        let of_file =
            with(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6c2U6Y3JldA=="}, "none.example": {}}}"#);
        let (bytes, _) = of_file.config().await.expect("read");
        let expected = "{\n\t\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {\n\t\t\t\"auth\": \"bWU6c2U6Y3JldA==\"\n\t\t}\n\t}\n}";
        assert_eq!(text(bytes), expected);
        let of_store = with(
            r#"{"credsStore": "mine", "credHelpers": {"l.example": "mine", "x.example": "gone"}, "auths": {"a.example": {}}}"#,
        );
        let (bytes, lacking) = of_store.config().await.expect("read");
        let found: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(found["auths"]["a.example"]["auth"], "bWU6d29yZA==");
        assert_eq!(found["auths"]["t.example"], serde_json::json!({"identitytoken": "t0ken"}));
        assert_eq!(found.as_object().map(serde_json::Map::len), Some(1), "{found}");
        assert!(lacking.len() == 2 && lacking[0].contains("the keychain is locked"), "{lacking:?}");
        let no_store = with(r#"{"credsStore": "gone"}"#).config().await;
        assert!(no_store.as_ref().is_err_and(|why| why.contains("docker-credential-gone")), "{no_store:?}");
    }

    #[test]
    fn a_broken_file_is_told_without_its_content_and_a_missing_one_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let of_user = || Logins::of_user(&|name| (name == "DOCKER_CONFIG").then(|| directory.path().into()));
        assert!(of_user().take_problems().is_empty());
        std::fs::write(directory.path().join("config.json"), "{\"auths\": \"s3cret\"}").expect("written");
        let problems = of_user().take_problems();
        assert!(problems[0].contains("line 1, column") && !problems[0].contains("s3cret"), "{problems:?}");
    }

    #[test]
    fn secrets_are_not_shown_by_accident() {
        let password = "w0rd".to_owned();
        let login =
            RegistryLogin { registry: "a.example".into(), username: "me".into(), password, ..Default::default() };
        let shown = format!("{login:?}");
        assert!(shown.contains("a.example") && !shown.contains("w0rd"), "{shown}");
    }
}
