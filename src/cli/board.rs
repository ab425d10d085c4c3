//! What is under way, as lines for a terminal: a value that events change and that renders itself for a size and a time.
//!
//! The picture is Docker Compose's: a count, then a line for each object with what it does and for how long. Where the terminal
//! is narrow, first the kinds of objects give way (`Container`), then the middles of names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::api::types::ObjectState;
use crate::diag::plain;

/// Frames of the spinner, one every [`FRAME`].
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Time between two frames. Ten a second look alive and cost nothing.
pub(crate) const FRAME: Duration = Duration::from_millis(100);

/// Objects that move, in the order in which they first moved.
#[derive(Debug, Default)]
pub(crate) struct Board {
    items: Vec<Item>,
    index: BTreeMap<String, usize>,
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Kind and name: `Container shop-web-1`.
    pub id: String,
    /// Docker Compose's word.
    pub status: String,
    /// What that means.
    pub state: ObjectState,
    /// More, for the reader.
    pub detail: Option<String>,
}

#[derive(Debug)]
struct Item {
    event: Event,
    begun: Duration,
    ended: Option<Duration>,
}

/// What a board is drawn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Canvas {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Whether colours may be used.
    pub colour: bool,
}

impl Board {
    /// Takes in a change that happened at `now` (time since any fixed point). Returns whether it says anything new.
    pub(crate) fn apply(&mut self, event: Event, now: Duration) -> bool {
        let ended = (event.state != ObjectState::Working).then_some(now);
        if let Some(item) = self.index.get(&event.id).and_then(|at| self.items.get_mut(*at)) {
            if item.event == event {
                return false;
            }
            // An object that begins anew (recreated, then started) is timed anew.
            if item.ended.is_some() && ended.is_none() {
                item.begun = now;
            }
            *item = Item { event, begun: item.begun, ended };
        } else {
            self.index.insert(event.id.clone(), self.items.len());
            self.items.push(Item { event, begun: now, ended });
        }
        true
    }

    /// Returns whether nothing was ever under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Renders the board as lines that fit the canvas: one for the count, one for each object. Where they are too many,
    /// those that wait or failed go first and the rest is counted.
    pub(crate) fn lines(&self, title: &str, now: Duration, canvas: Canvas) -> Vec<String> {
        let done = self.items.iter().filter(|item| item.ended.is_some()).count();
        let head = format!("[+] {title} {done}/{}", self.items.len());
        let head = fit(&head, canvas.width);
        let all_done = done == self.items.len();
        let mut lines = vec![if all_done { paint(&head, BLUE, canvas.colour) } else { head }];

        let room = canvas.height.saturating_sub(2).max(1);
        let shown = self.shown(room);
        let status_width = shown.iter().map(|item| item.event.status.width()).max().unwrap_or(0);
        let columns = |kinds: bool| {
            let id_width = shown.iter().map(|item| item.name(kinds).width()).max().unwrap_or(0);
            let columns = Columns::of(canvas.width, id_width, status_width, kinds);
            (columns, id_width <= columns.id)
        };
        let columns = match columns(true) {
            (columns, true) => columns,
            _ => columns(false).0,
        };
        lines.extend(shown.iter().map(|item| item.line(columns, now, canvas)));
        if shown.len() < self.items.len() {
            lines.push(fit(&format!("   … and {} more", self.items.len() - shown.len()), canvas.width));
        }
        lines
    }

    /// The items to show in at most `room` lines, in their order.
    fn shown(&self, room: usize) -> Vec<&Item> {
        if self.items.len() <= room {
            return self.items.iter().collect();
        }
        let room = room.saturating_sub(1).max(1); // the line that counts the others
        let settled = |item: &Item| matches!(item.event.state, ObjectState::Done);
        let open = self.items.iter().filter(|item| !settled(item)).count();
        let mut spare = room.saturating_sub(open);
        let mut shown: Vec<&Item> = Vec::with_capacity(room);
        // From the end, so that the spare lines show what was done last.
        for item in self.items.iter().rev() {
            let take = !settled(item) || spare > 0;
            if take && shown.len() < room {
                spare = spare.saturating_sub(usize::from(settled(item)));
                shown.push(item);
            }
        }
        shown.reverse();
        shown
    }
}

impl Event {
    /// Returns its status as the board paints it, for a line of its own.
    pub(crate) fn painted_status(&self, colour: bool) -> String {
        match self.state {
            ObjectState::Working => self.status.clone(),
            ObjectState::Done => paint(&self.status, GREEN, colour),
            ObjectState::Warning => paint(&self.status, YELLOW, colour),
            ObjectState::Error => paint(&self.status, RED, colour),
        }
    }
}

impl Item {
    /// The name, with what kind of object it is of.
    fn name(&self, with_kind: bool) -> &str {
        let id = &self.event.id;
        if with_kind { id } else { id.split_once(' ').map_or(id, |(_, name)| name) }
    }

    fn line(&self, columns: Columns, now: Duration, canvas: Canvas) -> String {
        let Event { id: _, status, state, detail } = &self.event;
        let elapsed = self.ended.unwrap_or(now).saturating_sub(self.begun);
        let timer = format!("{:.1}s ", elapsed.as_secs_f64());
        let (icon, colour) = match state {
            ObjectState::Working => (spinner(now), YELLOW),
            ObjectState::Done => ('✔', GREEN),
            ObjectState::Warning => ('!', YELLOW),
            ObjectState::Error => ('✘', RED),
        };
        let timer_fits = canvas.width >= SIGN + TIMER + LEAST_ID;
        let room = canvas.width.saturating_sub(SIGN + if timer_fits { timer.len() + 1 } else { 0 });
        let mut text = pad(&squeeze(self.name(columns.kinds), columns.id), columns.id);
        if columns.status {
            write!(text, "  {status}").expect("a string takes all");
        }
        if let Some(detail) = detail.as_ref().filter(|_| columns.status) {
            write!(text, "  {}", plain(detail).replace(['\n', '\r', '\x1b'], " ")).expect("a string takes all");
        }
        let text = fit(&text, room);
        let end = if timer_fits {
            format!("{} {}", pad("", room - text.width()), paint(&timer, BLUE, canvas.colour))
        } else {
            String::new()
        };
        let text = match state {
            ObjectState::Working => text,
            _ => paint_word(&text, status, colour, canvas.colour),
        };
        format!(" {} {text}{end}", paint(&icon.to_string(), colour, canvas.colour)).trim_end().to_owned()
    }
}

/// ` ✔ ` before an object.
const SIGN: usize = 3;
/// A timer up to 99.9 seconds, with a blank on both sides.
const TIMER: usize = 7;
/// Least columns for the name of an object beside its status.
const LEAST_ID: usize = 10;

/// How names and statuses share a line.
#[derive(Debug, Clone, Copy)]
struct Columns {
    /// Columns of names.
    id: usize,
    /// Whether statuses are shown.
    status: bool,
    /// Whether the kinds of objects stand before their names.
    kinds: bool,
}

impl Columns {
    /// Leaves room for what becomes of the objects, which is what is looked for; names give way. Where both have no room
    /// the name stays, and the sign before it says the rest.
    fn of(width: usize, id: usize, status: usize, kinds: bool) -> Self {
        let beside = width.saturating_sub(SIGN + TIMER + status + 2);
        if beside >= LEAST_ID {
            return Self { id: id.min(beside), status: true, kinds };
        }
        let timer = if width >= SIGN + TIMER + LEAST_ID { TIMER } else { 0 };
        Self { id: id.min(width.saturating_sub(SIGN + timer)), status: false, kinds }
    }
}

/// Cuts to at most `width` columns by taking out the middle: names begin with the project and end with number and host.
fn squeeze(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let tail = width.saturating_sub(1) / 2;
    let head = fit(text, width.saturating_sub(tail));
    let mut end: Vec<char> = Vec::new();
    let mut room = tail;
    for c in text.chars().rev() {
        let columns = c.width().unwrap_or(0);
        if columns > room {
            break;
        }
        room -= columns;
        end.push(c);
    }
    head + &end.iter().rev().collect::<String>()
}

fn spinner(now: Duration) -> char {
    let frame = now.as_millis() / FRAME.as_millis();
    SPINNER[usize::try_from(frame % SPINNER.len() as u128).unwrap_or(0)]
}

const BLUE: &str = "34";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Paints `word` where it stands in `text`; nothing where it was cut off.
fn paint_word(text: &str, word: &str, code: &str, colour: bool) -> String {
    match text.rfind(&format!("  {word}")) {
        Some(at) if colour => {
            let (before, rest) = text.split_at(at + 2);
            let (word, after) = rest.split_at(word.len());
            format!("{before}{}{after}", paint(word, code, true))
        }
        _ => text.to_owned(),
    }
}

/// Fills up with blanks to `width` columns.
fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

/// Cuts to at most `width` columns; what is cut off shows as `…`.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let mut cut = String::new();
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if columns > room {
            break;
        }
        room -= columns;
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, status: &str, state: ObjectState) -> Event {
        Event { id: id.to_owned(), status: status.to_owned(), state, detail: None }
    }

    fn board() -> Board {
        let mut board = Board::default();
        let at = Duration::from_millis;
        board.apply(event("Network shop_default", "Creating", ObjectState::Working), at(0));
        board.apply(event("Network shop_default", "Created", ObjectState::Done), at(100));
        board.apply(event("Container shop-db-1", "Starting", ObjectState::Working), at(100));
        board.apply(event("Container shop-db-1", "Started", ObjectState::Done), at(400));
        board.apply(event("Container shop-web-1", "Starting", ObjectState::Working), at(400));
        let failed = event("Container shop-web-2", "Error", ObjectState::Error);
        board.apply(Event { detail: Some("port is already allocated".to_owned()), ..failed }, at(500));
        board
    }

    fn draw(width: usize, height: usize) -> String {
        let canvas = Canvas { width, height, colour: false };
        board().lines("Running", Duration::from_millis(1300), canvas).join("\n")
    }

    #[test]
    fn objects_are_listed_with_what_they_do_and_for_how_long() {
        insta::assert_snapshot!(draw(80, 24), @"
        [+] Running 3/4
         ✔ Network shop_default  Created                                           0.1s
         ✔ Container shop-db-1   Started                                           0.3s
         ⠸ Container shop-web-1  Starting                                          0.9s
         ✘ Container shop-web-2  Error  port is already allocated                  0.0s
        ");
    }

    #[test]
    fn a_narrow_terminal_cuts_lines_rather_than_wraps_them() {
        insta::assert_snapshot!(draw(40, 24), @"
        [+] Running 3/4
         ✔ Network shop_default  Created   0.1s
         ✔ Container shop-db-1   Started   0.3s
         ⠸ Container shop-web-1  Starting  0.9s
         ✘ Container shop-web-2  Error  p… 0.0s
        ");
        // Names lose what kind of object they are of before they lose anything of their own.
        insta::assert_snapshot!(draw(34, 24), @"
        [+] Running 3/4
         ✔ shop_default  Created     0.1s
         ✔ shop-db-1     Started     0.3s
         ⠸ shop-web-1    Starting    0.9s
         ✘ shop-web-2    Error  por… 0.0s
        ");
        insta::assert_snapshot!(draw(18, 24), @"
        [+] Running 3/4
         ✔ shop_default
         ✔ shop-db-1
         ⠸ shop-web-1
         ✘ shop-web-2
        ");
        insta::assert_snapshot!(draw(12, 24), @"
        [+] Running…
         ✔ shop…ault
         ✔ shop-db-1
         ⠸ shop…eb-1
         ✘ shop…eb-2
        ");
        for width in 0..100 {
            for line in draw(width, 24).lines() {
                assert!(line.width() <= width.max(3), "{width}: {line}");
            }
        }
    }

    #[test]
    fn a_low_terminal_shows_what_is_open_first() {
        insta::assert_snapshot!(draw(80, 5), @"
        [+] Running 3/4
         ⠸ Container shop-web-1  Starting                                          0.9s
         ✘ Container shop-web-2  Error  port is already allocated                  0.0s
           … and 2 more
        ");
        for height in 4..10 {
            assert!(draw(80, height).lines().count() < height, "{height}");
        }
    }

    #[test]
    fn colours_do_not_change_the_width() {
        let canvas = Canvas { width: 60, height: 24, colour: true };
        let lines = board().lines("Running", Duration::from_millis(1300), canvas);
        insta::assert_snapshot!(lines.join("\n").replace('\x1b', "ESC"), @"
        [+] Running 3/4
         ESC[32m✔ESC[0m Network shop_default  ESC[32mCreatedESC[0m                       ESC[34m0.1s ESC[0m
         ESC[32m✔ESC[0m Container shop-db-1   ESC[32mStartedESC[0m                       ESC[34m0.3s ESC[0m
         ESC[33m⠸ESC[0m Container shop-web-1  Starting                      ESC[34m0.9s ESC[0m
         ESC[31m✘ESC[0m Container shop-web-2  ESC[31mErrorESC[0m  port is already alloc… ESC[34m0.0s ESC[0m
        ");
    }

    #[test]
    fn an_object_that_begins_anew_is_timed_anew() {
        let mut board = Board::default();
        let id = "Container a";
        board.apply(event(id, "Created", ObjectState::Done), Duration::from_secs(1));
        board.apply(event(id, "Starting", ObjectState::Working), Duration::from_secs(9));
        board.apply(event(id, "Started", ObjectState::Done), Duration::from_secs(10));
        let canvas = Canvas { width: 60, height: 24, colour: false };
        insta::assert_snapshot!(board.lines("Running", Duration::from_secs(50), canvas).join("\n"), @"
        [+] Running 1/1
         ✔ Container a  Started                                1.0s
        ");
    }
}
