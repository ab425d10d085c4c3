//! Network namespaces for tests: a thread in a network of its own, where it may set addresses and rules freely.

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
