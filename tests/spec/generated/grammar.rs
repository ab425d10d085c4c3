//! Text from a grammar: alternatives that are chosen by a number.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The grammar of compose files, whose head says how it is written, that of orch's own keys, and that of files of variables.
const TEXTS: [&str; 3] = [include_str!("grammar.txt"), include_str!("own.txt"), include_str!("variables.txt")];

/// Numbers that look like chance and are the same for the same seed (`SplitMix64`).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(bound).expect("it fits")).expect("it is below one")
    }

    /// Returns whether one of `of` cases is the one.
    pub(crate) fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

enum Piece {
    Text(&'static str),
    One(&'static str),
    List(&'static str),
    Distinct(&'static str),
}

struct Alternative {
    weight: usize,
    pieces: Vec<Piece>,
}

/// The grammar, read.
pub(crate) struct Grammar(BTreeMap<&'static str, Vec<Alternative>>);

impl Grammar {
    /// Reads the grammar.
    ///
    /// # Panics
    /// Where it names what it does not define.
    pub(crate) fn new() -> Self {
        let mut rules: BTreeMap<&'static str, Vec<Alternative>> = BTreeMap::new();
        let mut current = "";
        for line in TEXTS.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            match line.strip_prefix("    ") {
                None => current = line,
                Some(text) => rules.entry(current).or_default().push(alternative(text)),
            }
        }
        for (name, alternatives) in &rules {
            for piece in alternatives.iter().flat_map(|alternative| &alternative.pieces) {
                let (Piece::One(other) | Piece::List(other) | Piece::Distinct(other)) = piece else { continue };
                assert!(rules.contains_key(other), "`{name}` names `{other}`, which is nowhere");
            }
        }
        Self(rules)
    }

    /// Returns a text of what `name` stands for. Of a broken text, one part in `junk` is something else; 0: none is.
    pub(crate) fn text(&self, name: &str, dice: &mut Dice, junk: usize) -> String {
        let mut text = String::new();
        self.one(name, dice, junk, &mut text);
        text
    }

    fn one(&self, name: &str, dice: &mut Dice, junk: usize, text: &mut String) {
        let name = if junk > 0 && dice.once_in(junk) { "junk" } else { name };
        let alternatives = &self.0[name];
        self.write(&alternatives[choose(alternatives.iter(), dice)], dice, junk, text);
    }

    fn write(&self, alternative: &Alternative, dice: &mut Dice, junk: usize, text: &mut String) {
        for piece in &alternative.pieces {
            match piece {
                Piece::Text(own) => text.push_str(own),
                Piece::One(name) => self.one(name, dice, junk, text),
                Piece::List(name) => {
                    for index in 0..dice.below(4) {
                        text.push_str(if index > 0 { ", " } else { "" });
                        self.one(name, dice, junk, text);
                    }
                }
                Piece::Distinct(name) => {
                    let mut left: Vec<&Alternative> = self.0[name].iter().collect();
                    for index in 0..=dice.below(5).min(left.len() - 1) {
                        text.push_str(if index > 0 { ", " } else { "" });
                        let chosen = left.remove(choose(left.iter().copied(), dice));
                        let mut written = String::new();
                        self.write(chosen, dice, junk, &mut written);
                        // One key has several alternatives.
                        left.retain(|other| other.key().is_empty() || other.key() != chosen.key());
                        write!(text, "{written}").expect("text takes everything");
                        if left.is_empty() {
                            break;
                        }
                    }
                }
            }
        }
    }
}

impl Alternative {
    /// The key that it begins with; empty where it does not begin with one.
    fn key(&self) -> &'static str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text.split_once(": ").map_or("", |(key, _)| key),
            _ => "",
        }
    }
}

/// Returns the index of one of them, by their weights.
fn choose<'a>(alternatives: impl Iterator<Item = &'a Alternative> + Clone, dice: &mut Dice) -> usize {
    let mut at = dice.below(alternatives.clone().map(|one| one.weight).sum());
    for (index, one) in alternatives.enumerate() {
        if at < one.weight {
            return index;
        }
        at -= one.weight;
    }
    0
}

fn alternative(text: &'static str) -> Alternative {
    let weighted = text.split_once(' ').and_then(|(weight, rest)| Some((weight.parse().ok()?, rest)));
    // `1 kb` is a size, and its number no weight.
    let (weight, mut rest) = weighted.filter(|(weight, _)| *weight > 1).unwrap_or((1, text));
    let mut pieces = Vec::new();
    while let Some((before, name, after)) = reference(rest) {
        pieces.push(Piece::Text(before));
        pieces.push(match (name.strip_suffix(','), name.strip_suffix(';')) {
            (Some(name), _) => Piece::List(name),
            (_, Some(name)) => Piece::Distinct(name),
            _ => Piece::One(name),
        });
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Alternative { weight, pieces }
}

/// Splits at the first `<name>`; `<<` is YAML's key to merge.
fn reference(text: &'static str) -> Option<(&'static str, &'static str, &'static str)> {
    let start = text.match_indices('<').map(|(at, _)| at).find(|at| {
        let rest = &text[at + 1..];
        rest.starts_with(|first: char| first.is_ascii_lowercase()) && rest.contains('>')
    })?;
    let (name, after) = text[start + 1..].split_once('>')?;
    Some((&text[..start], name, after))
}
