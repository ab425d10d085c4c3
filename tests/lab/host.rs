//! One lab host: a machine of its own as far as orch can see, made of namespaces (see the script `lab` beside this file).
//!
//! Each test boots its own (0.6 s) and takes it down when it ends, so tests share nothing and may break what they like.
#![expect(clippy::disallowed_methods, reason = "end to end: programs are run as a user would")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

use crate::lab::Lab;
use crate::wait::{eventually, secs};

/// Where the host finds orch.
pub(crate) const ORCH: &str = "/opt/orch/orch";

/// A booted host with an engine and orch's program on it.
pub(crate) struct Host {
    lab: Arc<Lab>,
    /// Its name in the lab.
    name: String,
    /// The directory that is the host's `/`.
    root: PathBuf,
}

/// What a command gave.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// Exit code; a signal's number + 128.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(137),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Returns the standard output, trimmed.
    ///
    /// # Panics
    /// When the command failed, with all that it said.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "the command failed\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim().to_owned()
    }

    /// Checks that the command failed with `code` and said each of `words` on standard error.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "exit code\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in: {}", self.stderr);
        }
    }
}

impl Host {
    /// Boots a host with these images (names of tests/images/make) on its engine.
    pub(crate) fn boot(images: &[&str]) -> Self {
        Self::boot_on("kept", images)
    }

    /// Boots a host whose `/var/lib` holds no more than `size` (`64m`).
    pub(crate) fn boot_with_disk(size: &str, images: &[&str]) -> Self {
        Self::boot_on(size, images)
    }

    fn boot_on(disk: &str, images: &[&str]) -> Self {
        let lab = Lab::free();
        lab.run(&["up", "1", "--disk", disk]);
        let host = Self::in_lab(&Arc::new(lab), "node1");
        host.load(images);
        host
    }

    /// Returns the booted host of this name in a lab, with orch's program.
    pub(crate) fn in_lab(lab: &Arc<Lab>, name: &str) -> Self {
        let host = Self { lab: Arc::clone(lab), name: name.to_owned(), root: lab.folder().join(name).join("root") };
        assert_eq!(host.give("orch", &stripped_orch()), ORCH);
        host
    }

    /// Loads images of tests/images/make.
    pub(crate) fn load(&self, images: &[&str]) {
        if !images.is_empty() {
            self.lab.run(&["load-images", &self.name, "--images", &images.join(",")]);
        }
    }

    /// Returns its name in the lab.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the prefix of everything that the host has on this machine.
    pub(crate) fn lab_name(&self) -> &str {
        self.lab.name()
    }

    /// Returns the host's address, which this machine reaches.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.lab.address(&self.name)
    }

    // -- files -----------------------------------------------------------------------

    /// Writes a file of the host, below `/root`, `/etc` or `/var` (file systems that outlive its power).
    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("has a folder")).expect("make the folder");
        fs::write(file, text).expect("write a file of the host");
    }

    /// Copies a program of this machine to the host. Returns where it is there.
    pub(crate) fn give(&self, name: &str, program: &Path) -> String {
        let folder = self.root.join("opt/orch");
        fs::create_dir_all(&folder).expect("make the folder of programs");
        fs::copy(program, folder.join(name)).expect("copy a program to the host");
        format!("/opt/orch/{name}")
    }

    // -- programs --------------------------------------------------------------------

    /// Runs a program in the host, as root, in `/root`.
    pub(crate) fn exec(&self, argv: &[&str]) -> Done {
        Done::new(&self.command(argv).output().expect("run nsenter"))
    }

    /// Runs a shell script in the host and returns its output; it must succeed.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.exec(&["sh", "-ec", script]).ok()
    }

    /// Runs orch in the host.
    pub(crate) fn orch(&self, args: &[&str]) -> Done {
        self.exec(&[&[ORCH], args].concat())
    }

    /// Runs the engine's own client in the host; it must succeed.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        self.exec(&[&["docker"], args].concat()).ok()
    }

    /// Starts orch in the host and leaves it running; see [`Started`].
    pub(crate) fn start_orch(&self, args: &[&str]) -> Started<'_> {
        self.start(&[&[ORCH], args].concat())
    }

    /// Starts a program in the host and leaves it running; see [`Started`].
    pub(crate) fn start(&self, argv: &[&str]) -> Started<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // The shell's pid becomes the program's: nsenter's own could not be used to kill it.
        let file = format!("/run/started.{}.pid", NUMBER.fetch_add(1, Ordering::Relaxed));
        let script = format!("echo $$ >{file}; exec \"$@\"");
        let mut command = self.command(&[&["sh", "-c", &script, "sh"], argv].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run nsenter");
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        Started { host: self, child, errors, said: String::new(), file }
    }

    /// Runs a program in the network namespace of a container, with the host's files.
    pub(crate) fn exec_beside(&self, container: &str, argv: &[&str]) -> Done {
        Done::new(&self.command_beside(container).args(argv).output().expect("run nsenter"))
    }

    /// Returns a command that lacks the program, to be run in the network namespace of a container.
    pub(crate) fn command_beside(&self, container: &str) -> Command {
        let pid = self.docker(&["inspect", "-f", "{{.State.Pid}}", container]);
        self.command(&["nsenter", "-t", &pid, "-n", "--"])
    }

    /// Returns a command that runs a program in the host, as root, in `/root`.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let init = fs::read_to_string(self.root.with_file_name("init.pid")).unwrap_or_default();
        let pid = init.split(' ').next().filter(|pid| !pid.is_empty()).expect("the host is up");
        let mut command = Command::new("nsenter");
        command.args(["-t", pid, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "--wdns=/root", "--"]).args(argv);
        command.env_clear().env("HOME", "/root").env("LANG", "C.UTF-8");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    // -- power and engine ------------------------------------------------------------

    /// Takes the power away: everything in the host ends at once; the disk stays.
    pub(crate) fn power_off(&self) {
        self.lab.run(&["kill", &self.name]);
    }

    /// Boots again after [`Host::power_off`].
    pub(crate) fn power_on(&self) {
        self.lab.run(&["start", &self.name]);
    }

    /// Stops the engine in order, as a package upgrade does, and returns when a new one answers.
    pub(crate) fn restart_engine(&self) {
        let old = self.sh("cat /run/engine.service.pid");
        self.sh(&format!("kill -TERM {old}"));
        eventually(secs(40), "another engine", || {
            let now = self.exec(&["cat", "/run/engine.service.pid"]).stdout.trim().to_owned();
            let answers = self.exec(&["docker", "version"]).code == 0;
            if now != old && answers { Ok(()) } else { Err(now) }
        });
    }

    /// Prints what helps to understand a failed test.
    fn tell(&self) {
        std::io::stderr().write_all(format!("=== {}\n", self.name).as_bytes()).ok();
        for script in [
            "docker ps -a --no-trunc --format '{{.Names}} {{.Image}} {{.Status}} {{.Ports}}'",
            "docker network ls --format '{{.Name}} {{.Driver}}'; ip -4 -br addr",
            "docker logs --tail 60 orch-agent",
            "iptables-save -t nat | grep -i orch; iptables-save -t filter | grep -i orch",
        ] {
            let done = self.exec(&["sh", "-c", script]);
            let text = format!("--- {script}\n{}{}", done.stdout, done.stderr);
            std::io::stderr().write_all(text.as_bytes()).ok();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}

/// An orch that runs while the test goes on.
pub(crate) struct Started<'a> {
    host: &'a Host,
    child: Child,
    errors: BufReader<ChildStderr>,
    /// What was read of its standard error.
    said: String,
    /// Where its pid is.
    file: String,
}

impl Started<'_> {
    /// Reads what it says on standard error until a line has `words`. Returns whether one had before its end.
    pub(crate) fn says(&mut self, words: &str) -> bool {
        loop {
            let from = self.said.len();
            match self.errors.read_line(&mut self.said) {
                Ok(0) | Err(_) => return false,
                Ok(_) if self.said[from..].contains(words) => return true,
                Ok(_) => {}
            }
        }
    }

    /// Sends a signal (`KILL`, `INT`) to orch itself, and waits for its end.
    pub(crate) fn signal(mut self, signal: &str) -> Done {
        self.send(signal);
        self.finish()
    }

    /// Sends a signal and does not wait.
    pub(crate) fn send(&mut self, signal: &str) {
        let pid = eventually(secs(15), "orch to be started", || {
            let pid = self.host.exec(&["cat", &self.file]).stdout.trim().to_owned();
            if pid.is_empty() { Err("no pid yet") } else { Ok(pid) }
        });
        if self.child.try_wait().expect("its state").is_none() {
            self.host.exec(&["kill", "-s", signal, &pid]);
        }
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Done {
        let Self { child, mut errors, mut said, .. } = self;
        // Beside each other: a full pipe would hold it up.
        let rest = std::thread::spawn(move || {
            // What was read before it broke is all that there is.
            drop(errors.read_to_string(&mut said));
            said
        });
        let done = Done::new(&child.wait_with_output().expect("its output"));
        Done { stderr: rest.join().expect("no panic"), ..done }
    }
}

/// Returns orch's program without debug information: a tenth of the size for every engine to load.
fn stripped_orch() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_orch"));
    let metadata = fs::metadata(built).expect("orch was built");
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).expect("a time");
    let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("orch-{}", modified.as_nanos()));
    if !stripped.exists() {
        let draft = stripped.with_extension(std::process::id().to_string());
        let done = Command::new("strip").arg("-o").arg(&draft).arg(built).output().expect("run strip");
        assert!(done.status.success(), "strip: {}", String::from_utf8_lossy(&done.stderr));
        fs::rename(draft, &stripped).expect("put it in place");
    }
    stripped
}
