//! A terminal with somebody before it: what a program shows is read as a terminal would, keys are pressed, and its size
//! changes. Also used by the lab's tests.
#![expect(clippy::disallowed_methods, reason = "programs are run as a user would, in real time")]
#![allow(dead_code, clippy::allow_attributes, reason = "the two test binaries use different parts of it")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Longest that is waited for what shall be on the screen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program in a terminal.
pub(crate) struct Pty {
    keyboard: File,
    /// Keeps the terminal there, to be looked at after the program's end.
    terminal: OwnedFd,
    child: Child,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

/// What was shown so far.
pub(crate) struct Seen {
    parser: vt100::Parser,
    /// All bytes.
    pub(crate) raw: Vec<u8>,
    /// Rows that ran over the terminal's edge at any time.
    pub(crate) wrapped: Vec<String>,
    /// Whether the program's side is closed.
    ended: bool,
}

impl Seen {
    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        self.parser.process(bytes);
        let screen = self.parser.screen();
        let (rows, columns) = screen.size();
        let lines: Vec<String> = screen.rows(0, columns.get()).collect();
        let over = (0..rows.get()).filter(|row| screen.row_wrapped(*row));
        self.wrapped.extend(over.filter_map(|row| lines.get(usize::from(row)).cloned()));
    }

    /// Returns what is on the screen now, without blanks at ends of lines.
    pub(crate) fn screen(&self) -> String {
        let text = self.parser.screen().contents();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    /// Returns all that was written, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// Returns whether the cursor can be seen.
    pub(crate) fn has_cursor(&self) -> bool {
        !self.parser.screen().hide_cursor()
    }
}

impl Pty {
    /// Starts a program in a terminal of its own, which is its controlling one.
    pub(crate) fn start(program: &Command, size: (u16, u16)) -> Self {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = program.get_current_dir() {
            command.current_dir(directory);
        }
        Self::open(&mut command, size)
    }

    /// Starts a program that makes the terminal its controlling one by itself.
    pub(crate) fn open(command: &mut Command, (columns, rows): (u16, u16)) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).expect("granted");
        unlockpt(&controller).expect("unlocked");
        let terminal = ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("its other side");
        tcsetwinsize(&terminal, winsize(columns, rows)).expect("a size");
        let side = || terminal.try_clone().expect("a copy");
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("run it");
        // The command keeps its copies of the terminal open as long as it has them.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());

        let parser = vt100::Parser::new(size(rows), size(columns), 0);
        let seen = Seen { parser, raw: Vec::new(), wrapped: Vec::new(), ended: false };
        let seen = Arc::new((Mutex::new(seen), Condvar::new()));
        let keyboard = File::from(controller);
        let mut screen = keyboard.try_clone().expect("a copy");
        let shared = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            let (seen, news) = &*shared;
            // EIO is how the end of the other side is told.
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                seen.lock().expect("no panic").take(&piece[..length]);
                news.notify_all();
            }
            seen.lock().expect("no panic").ended = true;
            news.notify_all();
        });
        Self { keyboard, terminal, child, seen, reader: Some(reader) }
    }

    /// Waits until what was shown is as wanted. Returns what `look` returns.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        let (seen, news) = &*self.seen;
        let deadline = Instant::now() + PATIENCE;
        let mut seen = seen.lock().expect("no panic");
        loop {
            if let Some(value) = look(&seen) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !seen.ended, "{what}: last seen:\n{}\nof: {:?}", seen.screen(), seen.text());
            seen = news.wait_timeout(seen, left).expect("no panic").0;
        }
    }

    /// Waits until the screen has these words. Returns the screen.
    #[track_caller]
    pub(crate) fn shows(&self, words: &str) -> String {
        self.until(words, |seen| seen.screen().contains(words).then(|| seen.screen()))
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("keys");
    }

    /// Gives the terminal another size, and tells the program.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        self.seen.0.lock().expect("no panic").parser.screen_mut().set_size(size(rows), size(columns));
        tcsetwinsize(&self.terminal, winsize(columns, rows)).expect("another size");
    }

    /// Returns whether the terminal hands on lines, shows what is typed and makes signals of keys, as before.
    pub(crate) fn is_sane(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("its modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the program's end. Returns its code (as a shell has it) and what was shown.
    pub(crate) fn finish(mut self) -> (i32, Seen) {
        let status = self.child.wait().expect("its end");
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        assert!(self.is_sane(), "the terminal was left in raw mode");
        let Self { keyboard, terminal, seen, reader, .. } = self;
        drop(terminal);
        reader.expect("it is there").join().expect("no panic");
        drop(keyboard);
        let seen = Arc::into_inner(seen).expect("the reader is gone").0.into_inner().expect("no panic");
        (code, seen)
    }
}

fn size(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has rows and columns")
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
