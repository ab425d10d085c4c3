//! What `BuildKit` says of its steps, as lines: `#5 [2/3] RUN make`, what the step prints, `#5 DONE 0.9s`.
//!
//! Source: moby/buildkit, api/services/control/control.proto; the lines are those of its `--progress=plain`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::proto::{self, Malformed};

/// Lines of a step that are kept for when it fails.
const LAST_LINES: usize = 10;

/// Longest line that is kept whole: what has no line ends is cut.
const LONGEST_LINE: usize = 4096;

/// The steps of a build.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: BTreeMap<String, Step>,
    /// Transfers that were said to be done.
    told: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Step {
    /// From 1, in the order in which they begin; 0: it has not.
    number: usize,
    name: String,
    started: Option<Time>,
    is_done: bool,
    error: String,
    /// What was printed behind the last line end.
    begun: Vec<u8>,
    last: VecDeque<String>,
}

/// Seconds and nanoseconds.
type Time = (i64, i64);

impl Steps {
    /// Takes in a message of status. Returns its lines.
    pub(super) fn take(&mut self, status: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut lines = Vec::new();
        // What a step printed comes with the message that says it has ended.
        let mut order: [Vec<&[u8]>; 4] = Default::default();
        let mut ended = Vec::new();
        for field in proto::fields(status) {
            let (number @ 1..=4, value) = field? else { continue };
            order[number as usize - 1].push(value.bytes());
        }
        let [vertices, transfers, logs, warnings] = order;
        for vertex in vertices {
            ended.extend(self.vertex(vertex, &mut lines)?);
        }
        for transfer in transfers {
            self.transfer(transfer, &mut lines)?;
        }
        for log in logs {
            self.log(log, &mut lines)?;
        }
        for warning in warnings {
            let text = proto::text(warning, 3)?;
            lines.push(format!("WARN: {text}"));
        }
        for (digest, end) in ended {
            self.finish(&digest, &end, &mut lines);
        }
        Ok(lines)
    }

    /// Returns the name of the step that failed, and its last lines.
    pub(super) fn failed(&self) -> Option<(&str, Vec<String>)> {
        let failed =
            self.steps.values().find(|step| !step.error.is_empty() && !step.error.ends_with("context canceled"));
        failed.map(|step| (step.name.as_str(), step.last.iter().cloned().collect()))
    }

    /// Returns digest and last line of a step that has ended.
    fn vertex(&mut self, message: &[u8], lines: &mut Vec<String>) -> Result<Option<(String, String)>, Malformed> {
        let (mut digest, mut name, mut error) = (String::new(), String::new(), String::new());
        let (mut cached, mut started, mut completed) = (false, None, None);
        for field in proto::fields(message) {
            match field? {
                (1, value) => digest = value.text(),
                (3, value) => name = value.text(),
                (4, value) => cached = value.number() != 0,
                (5, value) => started = Some(time(value.bytes())?),
                (6, value) => completed = Some(time(value.bytes())?),
                (7, value) => error = value.text(),
                _ => {}
            }
        }
        let next = self.steps.values().filter(|step| step.number > 0).count() + 1;
        let step = self.steps.entry(digest.clone()).or_default();
        step.name = name;
        if started.is_some() && step.number == 0 {
            step.number = next;
            lines.push(format!("#{next} {}", step.name));
        }
        // A step is done once more where it was waited for by two.
        step.started = step.started.or(started);
        if !error.is_empty() {
            step.error.clone_from(&error);
        }
        let Some(completed) = completed.filter(|_| step.number > 0 && !step.is_done) else { return Ok(None) };
        step.is_done = true;
        let end = match (error.as_str(), cached) {
            ("", true) => "CACHED".to_owned(),
            ("", false) => format!("DONE {:.1}s", seconds(step.started.unwrap_or(completed), completed)),
            (error, _) if error.ends_with("context canceled") => "CANCELED".to_owned(),
            (error, _) => format!("ERROR: {error}"),
        };
        Ok(Some((digest, end)))
    }

    fn finish(&mut self, digest: &str, end: &str, lines: &mut Vec<String>) {
        let Some(step) = self.steps.get_mut(digest) else { return };
        let rest = std::mem::take(&mut step.begun);
        step.line(&rest, lines);
        lines.push(format!("#{} {end}", step.number));
    }

    fn log(&mut self, message: &[u8], lines: &mut Vec<String>) -> Result<(), Malformed> {
        let (mut digest, mut text) = (String::new(), &[][..]);
        for field in proto::fields(message) {
            match field? {
                (1, value) => digest = value.text(),
                (4, value) => text = value.bytes(),
                _ => {}
            }
        }
        let Some(step) = self.steps.get_mut(&digest) else { return Ok(()) };
        step.begun.extend_from_slice(text);
        while let Some(end) =
            memchr::memchr(b'\n', &step.begun).or((step.begun.len() > LONGEST_LINE).then_some(LONGEST_LINE))
        {
            let line: Vec<u8> = step.begun.drain(..=end).collect();
            step.line(&line, lines);
        }
        Ok(())
    }

    /// Something that is transferred: said once it is done.
    fn transfer(&mut self, message: &[u8], lines: &mut Vec<String>) -> Result<(), Malformed> {
        let (mut id, mut digest, mut current, mut is_done) = (String::new(), String::new(), 0, false);
        for field in proto::fields(message) {
            match field? {
                (1, value) => id = value.text(),
                (2, value) => digest = value.text(),
                (4, value) => current = value.number(),
                (8, _) => is_done = true,
                _ => {}
            }
        }
        let number = self.steps.get(&digest).map_or(0, |step| step.number);
        if is_done && number > 0 && self.told.insert(format!("{digest} {id}")) {
            let size = if current > 0 { format!(" {}", amount(current)) } else { String::new() };
            lines.push(format!("#{number} {id}{size} done"));
        }
        Ok(())
    }
}

impl Step {
    fn line(&mut self, line: &[u8], lines: &mut Vec<String>) {
        let line = String::from_utf8_lossy(line);
        // What a program writes over its own line counts as it ends.
        let line = line.trim_end();
        let line = line.rsplit('\r').next().unwrap_or(line);
        if line.is_empty() {
            return;
        }
        lines.push(format!("#{} {line}", self.number));
        self.last.push_back(line.to_owned());
        if self.last.len() > LAST_LINES {
            self.last.pop_front();
        }
    }
}

fn time(message: &[u8]) -> Result<Time, Malformed> {
    let mut time = (0, 0);
    for field in proto::fields(message) {
        match field? {
            (1, value) => time.0 = value.number().cast_signed(),
            (2, value) => time.1 = value.number().cast_signed(),
            _ => {}
        }
    }
    Ok(time)
}

#[expect(clippy::cast_precision_loss, reason = "tenths of seconds")]
fn seconds(from: Time, to: Time) -> f64 {
    let nanos = i128::from(to.0 - from.0) * 1_000_000_000 + i128::from(to.1 - from.1);
    nanos.max(0) as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "three digits")]
fn amount(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let number = bytes as f64;
    match units.iter().find(|(unit, _)| number >= *unit) {
        Some((unit, name)) => format!("{:.2}{name}", number / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::Message;
    use super::*;

    fn at(seconds: u64, nanos: u64) -> Message {
        Message::default().number(1, seconds).number(2, nanos)
    }

    fn vertex(digest: &str, name: &str) -> Message {
        Message::default().text(1, digest).text(3, name)
    }

    fn log(digest: &str, text: &str) -> Message {
        Message::default().text(1, digest).text(4, text)
    }

    #[track_caller]
    fn check(steps: &mut Steps, status: Message, expected: &[&str]) {
        assert_eq!(steps.take(&status.into_bytes()).expect("a status"), expected);
    }

    #[test]
    fn steps_are_told_as_they_go() {
        let mut steps = Steps::default();
        let status = Message::default();
        check(
            &mut steps,
            status.clone().message(1, &vertex("a", "[1/2] FROM x")).message(1, &vertex("b", "RUN y")),
            &[],
        );
        let begun = vertex("a", "[1/2] FROM x").message(5, &at(10, 0));
        check(&mut steps, status.clone().message(1, &begun), &["#1 [1/2] FROM x"]);
        check(&mut steps, status.clone().message(1, &begun), &[]);
        let cached = begun.number(4, 1).message(6, &at(10, 1));
        let run = vertex("b", "[2/2] RUN y").message(5, &at(11, 500_000_000));
        check(&mut steps, status.clone().message(1, &cached).message(1, &run), &["#2 [2/2] RUN y", "#1 CACHED"]);
        check(&mut steps, status.clone().message(3, &log("b", "one\ntw")), &["#2 one"]);
        check(&mut steps, status.clone().message(3, &log("b", "o\n\n10%\r20%\n")), &["#2 two", "#2 20%"]);
        assert_eq!(steps.failed(), None);
        let failed = run.clone().message(6, &at(12, 0)).text(7, "exit code: 3");
        let status = status.message(1, &failed).message(3, &log("b", "last"));
        check(&mut steps, status, &["#2 last", "#2 ERROR: exit code: 3"]);
        let last: Vec<String> = ["one", "two", "20%", "last"].map(str::to_owned).into();
        assert_eq!(steps.failed(), Some(("[2/2] RUN y", last)));
    }

    #[test]
    fn transfers_are_told_once_they_are_done() {
        let mut steps = Steps::default();
        let begun = vertex("a", "load").message(5, &at(1, 0));
        check(&mut steps, Message::default().message(1, &begun), &["#1 load"]);
        let transfer = Message::default().text(1, "transferring context:").text(2, "a").number(4, 2_340);
        check(&mut steps, Message::default().message(2, &transfer), &[]);
        let done = transfer.message(8, &at(2, 0));
        check(&mut steps, Message::default().message(2, &done), &["#1 transferring context: 2.34kB done"]);
        check(&mut steps, Message::default().message(2, &done), &[]);
        let end = begun.message(6, &at(3, 260_000_000));
        check(&mut steps, Message::default().message(1, &end), &["#1 DONE 2.3s"]);
    }

    #[test]
    fn others_that_were_stopped_are_not_what_failed() {
        let mut steps = Steps::default();
        let stopped =
            vertex("a", "RUN long").message(5, &at(1, 0)).message(6, &at(2, 0)).text(7, "x: context canceled");
        check(&mut steps, Message::default().message(1, &stopped), &["#1 RUN long", "#1 CANCELED"]);
        assert_eq!(steps.failed(), None);
    }
}
