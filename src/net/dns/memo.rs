//! What one UDP loop answered of late: containers ask for the same few names again and again, in the same bytes but for
//! the id, and most of such an answer's cost is to read the question and to write the answer.
//!
//! Holds what the table alone decides, for as long as the table is the same one. It belongs to one task, so it has no lock.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};

use crate::net::names::NameTable;

/// Answers kept at most; one more, and all are forgotten. A container that varies its questions gains nothing by it.
const MOST: usize = 1024;

/// Longer questions are not kept.
const LONGEST_QUESTION: usize = 160;

/// Longer answers are not kept.
const LONGEST_ANSWER: usize = 512;

/// Bytes of a message's id, the first ones.
const ID: usize = 2;

/// Questions, without their ids, with their answers.
type Replies = HashMap<Box<[u8]>, Vec<u8>>;

/// The answers, by asker.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// The table that they are of. Weak: a loop that nobody asks does not keep an old table.
    table: Weak<NameTable>,
    by_asker: HashMap<Ipv4Addr, Replies>,
    count: usize,
}

impl Memo {
    /// Returns the answer to `question` of `asker`, with the question's id.
    pub(super) fn reply(&mut self, table: &Arc<NameTable>, asker: Ipv4Addr, question: &[u8]) -> Option<&[u8]> {
        if !std::ptr::eq(self.table.as_ptr(), Arc::as_ptr(table)) {
            *self = Self { table: Arc::downgrade(table), ..Self::default() };
        }
        let (id, rest) = question.split_at_checked(ID)?;
        let reply = self.by_asker.get_mut(&asker)?.get_mut(rest)?;
        reply.get_mut(..ID)?.copy_from_slice(id);
        Some(reply)
    }

    /// Keeps an answer of the table that [`Memo::reply`] was asked with last, or of a later one.
    pub(super) fn keep(&mut self, asker: Ipv4Addr, question: &[u8], reply: Vec<u8>) {
        let Some((_, rest)) = question.split_at_checked(ID) else { return };
        if question.len() > LONGEST_QUESTION || reply.len() > LONGEST_ANSWER {
            return;
        }
        if self.count >= MOST {
            self.by_asker.clear();
            self.count = 0;
        }
        if self.by_asker.entry(asker).or_default().insert(rest.into(), reply).is_none() {
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn table() -> Arc<NameTable> {
        Arc::new(NameTable::build(1, &[]))
    }

    #[test]
    fn an_answer_is_the_askers_own_and_has_the_questions_id() {
        let (table, mut memo) = (table(), Memo::default());
        assert_eq!(memo.reply(&table, ONE, b"12web"), None);
        memo.keep(ONE, b"12web", b"12answer".to_vec());
        assert_eq!(memo.reply(&table, ONE, b"34web"), Some(b"34answer".as_slice()));
        assert_eq!(memo.reply(&table, OTHER, b"34web"), None);
        assert_eq!(memo.reply(&table, ONE, b"34webb"), None);
        assert_eq!(memo.reply(&table, ONE, b"3"), None);
    }

    #[test]
    fn another_table_empties_it_also_one_of_the_same_version() {
        let (first, mut memo) = (table(), Memo::default());
        assert_eq!(memo.reply(&first, ONE, b"12web"), None);
        memo.keep(ONE, b"12web", b"12answer".to_vec());
        drop(first);
        assert_eq!(memo.reply(&table(), ONE, b"12web"), None);
        assert_eq!(memo.count, 0);
    }

    #[test]
    fn it_stays_small_whatever_is_asked() {
        let (table, mut memo) = (table(), Memo::default());
        for number in 0..10 * MOST {
            let question = format!("12{number}");
            assert_eq!(memo.reply(&table, ONE, question.as_bytes()), None);
            memo.keep(ONE, question.as_bytes(), b"12answer".to_vec());
            assert!(memo.count <= MOST && memo.by_asker.values().map(HashMap::len).sum::<usize>() == memo.count);
        }
        memo.keep(ONE, &[b'x'; LONGEST_QUESTION + 1], b"12answer".to_vec());
        assert_eq!(memo.reply(&table, ONE, &[b'x'; LONGEST_QUESTION + 1]), None);
    }
}
