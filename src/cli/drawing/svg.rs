//! A drawing as a picture. Source: <https://www.w3.org/TR/SVG2/>.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use super::layout::{Size, lay_out};
use super::{Drawing, Edge, Kind, Means, Node};

/// Width of a character of the monospaced font, of which this is the size below. Slightly more than such fonts have, so that
/// what another viewer takes instead has room too.
const CHARACTER: f64 = 7.4;
const LINE: f64 = 16.0;
const PADDING: f64 = 10.0;
/// Around the picture.
const MARGIN: f64 = 20.0;
const TITLE: f64 = 30.0;

/// Colours that are told apart in light and dark, by whoever does not see all colours, and by their shapes besides.
const STYLE: &str = "\
text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1f2328}
.name{font-weight:bold}.small{font-size:10px;fill:#57606a}
rect{stroke-width:1.2}.entry{fill:#fff8c5;stroke:#9a6700}.service{fill:#ddf4ff;stroke:#0969da}
.outside{fill:#f6f8fa;stroke:#57606a;stroke-dasharray:4 3}.network{fill:#fbefff;stroke:#8250df}.volume{fill:#dafbe1;stroke:#1a7f37}
path{fill:none;stroke:#57606a;stroke-width:1.2}.enters{stroke:#9a6700;stroke-width:1.8}.depends-on{stroke:#0969da}
.ambassador,.links{stroke:#bc4c00;stroke-dasharray:5 3}.on{stroke:#8250df;stroke-dasharray:2 3}.mounts{stroke:#1a7f37}
";

impl Drawing {
    /// Draws it.
    pub(crate) fn svg(&self) -> String {
        let sizes: Vec<Size> = self.nodes.iter().map(size).collect();
        let at: BTreeMap<(Kind, &str), usize> =
            self.nodes.iter().enumerate().map(|(at, node)| ((node.kind, node.name.as_str()), at)).collect();
        let find = |(kind, name): &(Kind, String)| at.get(&(*kind, name.as_str())).copied();
        let known: Vec<(&Edge, (usize, usize))> =
            self.edges.iter().filter_map(|edge| Some((edge, (find(&edge.from)?, find(&edge.to)?)))).collect();
        let ends: Vec<(usize, usize)> = known.iter().map(|(_, ends)| *ends).collect();
        let last: Vec<bool> = self.nodes.iter().map(|node| matches!(node.kind, Kind::Network | Kind::Volume)).collect();
        let laid = lay_out(&sizes, &ends, &last);

        let title = format!("project {}", self.project);
        let width = laid.size.width.max(wide(&title)) + 2.0 * MARGIN;
        let height = laid.size.height + 2.0 * MARGIN + TITLE;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto-start-reverse\"><path d=\"M0 0L8 4L0 8z\" style=\"fill:context-stroke;stroke:none\"/></marker></defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text class=\"name\" x=\"{MARGIN}\" y=\"{MARGIN}\">{}</text>\n",
            escape(&title)
        );
        _ = writeln!(text, "<g transform=\"translate({MARGIN} {})\">", MARGIN + TITLE);
        for ((edge, _), points) in known.iter().zip(&laid.edges) {
            text += &line(edge, points);
        }
        for ((node, size), (x, y)) in self.nodes.iter().zip(&sizes).zip(&laid.boxes) {
            text += &draw(node, *size, x - size.width / 2.0, *y);
        }
        text + "</g>\n</svg>\n"
    }
}

fn wide(text: &str) -> f64 {
    f64::from(u32::try_from(text.width()).unwrap_or(u32::MAX)) * CHARACTER
}

fn size(node: &Node) -> Size {
    let width = std::iter::once(&node.name).chain(&node.lines).map(|line| wide(line)).fold(40.0, f64::max);
    let lines = f64::from(u32::try_from(node.lines.len() + 1).unwrap_or(u32::MAX));
    Size { width: width + 2.0 * PADDING, height: lines * LINE + 2.0 * PADDING - 4.0 }
}

fn draw(node: &Node, size: Size, x: f64, y: f64) -> String {
    let Size { width, height } = size;
    let (class, round) = match node.kind {
        Kind::Entry => ("entry", 2.0),
        Kind::Service => ("service", 6.0),
        Kind::Outside => ("outside", 2.0),
        Kind::Network => ("network", 16.0),
        Kind::Volume => ("volume", 10.0),
    };
    let mut text = format!(
        "<g><rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{round}\"/>"
    );
    let mut baseline = y + PADDING + 9.0;
    let lines = std::iter::once(("name", &node.name)).chain(node.lines.iter().map(|line| ("more", line)));
    for (class, line) in lines {
        _ = write!(
            text,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{baseline:.1}\">{}</text>",
            x + PADDING,
            escape(line)
        );
        baseline += LINE;
    }
    text + "</g>\n"
}

/// A curve from point to point, straight down at both ends of each piece.
fn line(edge: &Edge, points: &[(f64, f64)]) -> String {
    let class = match edge.means {
        Means::Enters => "enters",
        Means::DependsOn => "depends-on",
        Means::Shares => "shares",
        Means::Links => "links",
        Means::Ambassador => "ambassador",
        Means::On => "on",
        Means::Mounts => "mounts",
    };
    let Some((first, rest)) = points.split_first() else { return String::new() };
    let mut way = format!("M{:.1} {:.1}", first.0, first.1);
    let mut before = *first;
    for (x, y) in rest {
        let bend = (y - before.1) / 2.0;
        _ = write!(way, "C{:.1} {:.1} {x:.1} {:.1} {x:.1} {y:.1}", before.0, before.1 + bend, y - bend);
        before = (*x, *y);
    }
    let end = if edge.means == Means::On { "" } else { " marker-end=\"url(#end)\"" };
    let mut text = format!("<path class=\"{class}\" d=\"{way}\"{end}/>");
    if let Some(next) = rest.first().filter(|_| !edge.label.is_empty()) {
        let (x, y) = (f64::midpoint(first.0, next.0), f64::midpoint(first.1, next.1));
        let label = escape(&edge.label);
        _ = write!(text, "<text class=\"small\" x=\"{:.1}\" y=\"{y:.1}\">{label}</text>", x + 4.0);
    }
    text + "\n"
}

fn escape(text: &str) -> String {
    let safe: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    safe.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
