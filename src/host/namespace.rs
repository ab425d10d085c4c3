//! Namespaces for tests: a thread in a network (and mounts) of its own, where it may set addresses and rules freely.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Set to leave out, loudly, the tests that need a namespace.
const LEAVE_OUT: &str = "ORCH_TEST_WITHOUT_NAMESPACES";

/// Runs `test` in a thread with a new, empty network; threads and processes that it starts are in it too.
///
/// A machine that does not let it fails the test, unless [`LEAVE_OUT`] is set: a test must not pass by doing nothing.
#[track_caller]
pub(crate) fn in_new_network<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let thread = std::thread::spawn(move || match enter_new_network() {
        Ok(()) => Some(test()),
        Err(error) if std::env::var_os(LEAVE_OUT).is_some() => {
            report(&format!("NOT TESTED: no network namespace: {error}"));
            None
        }
        Err(error) => panic!("no network namespace: {error}; run as root, or set {LEAVE_OUT}=1 to leave this test out"),
    });
    match thread.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// As [`in_new_network`], with mounts of its own too, for a test that needs a runtime: its blocking threads and children
/// are in the same namespaces.
#[track_caller]
pub(crate) fn in_new_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let _: Option<()> = in_new_network(|| {
        enter_new_mounts().expect("who may have a network of its own may have mounts of its own");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    });
}

/// Moves the calling thread into a copy of the machine's mounts; what it mounts shows nowhere else.
fn enter_new_mounts() -> std::io::Result<()> {
    // SAFETY: as below; a mount namespace also gives this thread its own root and working directory.
    #[expect(unsafe_code, reason = "no safe wrapper; tests only")]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

#[expect(clippy::print_stderr, reason = "the runner shows it with the test's name")]
fn report(text: &str) {
    eprintln!("{text}");
}

/// Moves the calling thread into a new, empty network with loopback up.
pub(crate) fn enter_new_network() -> std::io::Result<()> {
    // SAFETY: only `CLONE_FILES` endangers other threads' descriptors; a new network namespace concerns this thread alone.
    #[expect(unsafe_code, reason = "no safe wrapper; tests only")]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    tool("ip link set lo up");
    Ok(())
}

/// Returns the calling thread's id, by which `ip link set … netns` finds its network.
pub(crate) fn thread_id() -> String {
    rustix::thread::gettid().as_raw_nonzero().to_string()
}

/// Runs a command given as words, which must succeed.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "this is `host`")]
pub(crate) fn tool(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = std::process::Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("`{command}`: {error}"));
    assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
}
