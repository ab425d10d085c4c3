//! The store's tables and what is done to them, one SQLite transaction each. Knows no time, no leases' ends, no watchers.
//!
//! `changes` holds every change with its value; `entries` says for each living key which change is its last. So a value
//! is written once, and history is what lies in `changes` after `compacted`. What is older and no longer current goes
//! with the transaction that lets history grow over its bounds.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, Transaction, TransactionBehavior};

use crate::store::{Change, Compare, Entry, LeaseId, Outcome, StoreRevision, Write};

/// `orch` in ASCII: SQLite's own field for telling apart what programs made a file.
const APPLICATION: i32 = 0x6f72_6368;
/// Grows with every change that an older orch could not read.
const SCHEMA: i32 = 1;
const TABLES: &str = "
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
    INSERT INTO state VALUES (0, 0, 0);
    CREATE TABLE changes (
        revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, created INTEGER, lease INTEGER, UNIQUE (revision, key)
    );
    CREATE TABLE entries (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, lease INTEGER) WITHOUT ROWID;
    CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
    CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ms INTEGER NOT NULL);
";

/// How much history a store keeps, and how hard it tries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// Most changes.
    pub(super) changes: usize,
    /// Most bytes of values.
    pub(super) bytes: usize,
    /// Wait for the disk at every commit.
    pub(super) durable: bool,
}

impl Default for Options {
    /// A watcher that was away for a moment needs seconds of history; ten thousand changes are minutes of a busy cluster.
    /// A revision of a large project has some hundred kilobytes.
    fn default() -> Self {
        Self { changes: 10_000, bytes: 16 << 20, durable: true }
    }
}

/// Why a file is not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Sql(rusqlite::Error),
    Refused(String),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

type Result<T, E = rusqlite::Error> = std::result::Result<T, E>;

/// What one revision adds to the history.
#[derive(Debug, Clone, Copy)]
struct Weight {
    revision: StoreRevision,
    changes: usize,
    bytes: usize,
}

/// An open file. In memory it keeps only numbers, set after a commit, so a failed transaction leaves nothing behind.
#[derive(Debug)]
pub(super) struct Db {
    conn: Connection,
    options: Options,
    revision: StoreRevision,
    /// Changes up to and including this one may be gone.
    compacted: StoreRevision,
    history: VecDeque<Weight>,
}

impl Db {
    /// Opens a store, or makes one of an empty or missing file. Anything else is refused before a byte of it is changed.
    pub(super) fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags)?;
        let new = check_kind(&conn)?;
        // A write-ahead log: commits append and sync one file, and an inspector's reads never block them.
        conn.pragma_update(None, "journal_mode", "WAL")?;
        // FULL syncs the log at every commit. NORMAL does so only at checkpoints and may lose acknowledged commits
        // with the power (sqlite.org/pragma.html#pragma_synchronous); a lost claim would let a single pod run twice.
        conn.pragma_update(None, "synchronous", if options.durable { "FULL" } else { "OFF" })?;
        conn.pragma_update(None, "journal_size_limit", 16 << 20)?;
        // What is deleted is overwritten.
        conn.pragma_update(None, "secure_delete", "ON")?;
        conn.set_prepared_statement_cache_capacity(32);
        if new {
            let tx = conn.transaction()?;
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", SCHEMA)?;
            tx.commit()?;
        } else {
            let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(OpenError::Refused(format!("it is damaged: {verdict}")));
            }
        }
        let (revision, compacted) = conn.query_row("SELECT revision, compacted FROM state", [], |row| {
            Ok((revision_of(row, 0)?, revision_of(row, 1)?))
        })?;
        let history = read_history(&conn, compacted)?;
        Ok(Self { conn, options, revision, compacted, history })
    }

    /// Returns the last revision.
    pub(super) fn revision(&self) -> StoreRevision {
        self.revision
    }

    /// Returns the oldest revision that can be watched from.
    pub(super) fn compacted(&self) -> StoreRevision {
        self.compacted
    }

    /// Returns one key.
    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>> {
        let sql = "SELECT key, value, created, revision, c.lease FROM entries JOIN changes c USING (key, revision)
                   WHERE key = ?1";
        self.conn.prepare_cached(sql)?.query_row([key], entry_of).optional()
    }

    /// Returns the keys that start with `prefix`, in order.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let sql =
            "SELECT e.key, value, created, e.revision, c.lease FROM entries e JOIN changes c USING (key, revision)
                   WHERE e.key >= ?1 ORDER BY e.key";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([prefix], entry_of)?;
        rows.take_while(|row| row.as_ref().map_or(true, |entry| entry.key.starts_with(prefix))).collect()
    }

    /// Returns the changes of keys that start with `prefix` made after revision `after`, in order.
    pub(super) fn changes(&self, prefix: &str, after: StoreRevision) -> Result<Vec<Change>> {
        let sql = "SELECT key, value, created, revision, lease FROM changes WHERE revision > ?1 ORDER BY revision, key";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([number(after)])?;
        let mut changes = Vec::new();
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_str()?;
            if !key.starts_with(prefix) {
                continue;
            }
            changes.push(match row.get_ref(1)? {
                rusqlite::types::ValueRef::Null => Change::Deleted(key.to_owned(), revision_of(row, 3)?),
                _ => Change::Put(entry_of(row)?),
            });
        }
        Ok(changes)
    }

    /// Does what [`Store::transact`](crate::store::Store::transact) says and returns the changes that it made.
    pub(super) fn transact(&mut self, compares: &[Compare], writes: &[Write]) -> Result<(Outcome, Vec<Change>)> {
        self.write(|tx| {
            for compare in compares {
                if !holds(tx, compare)? {
                    return Ok(None);
                }
            }
            net_writes(tx, writes).map(Some)
        })
    }

    /// Ends leases: they and their keys are gone with one revision.
    pub(super) fn end_leases(&mut self, leases: &[LeaseId]) -> Result<Vec<Change>> {
        let (_, changes) = self.write(|tx| {
            let mut writes = BTreeMap::new();
            for lease in leases {
                let mut statement = tx.prepare_cached("SELECT key FROM entries WHERE lease = ?1")?;
                for key in statement.query_map([lease.0], |row| row.get::<_, String>(0))? {
                    writes.insert(key?, None);
                }
                tx.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([lease.0])?;
            }
            Ok(Some(writes))
        })?;
        Ok(changes)
    }

    /// Makes a lease; ids are never used again.
    pub(super) fn grant(&mut self, ttl_ms: i64) -> Result<LeaseId> {
        self.conn.prepare_cached("INSERT INTO leases (ttl_ms) VALUES (?1)")?.execute([ttl_ms])?;
        Ok(LeaseId(self.conn.last_insert_rowid()))
    }

    /// Returns all leases with their time to live in milliseconds.
    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, i64)>> {
        let mut statement = self.conn.prepare("SELECT id, ttl_ms FROM leases")?;
        let rows = statement.query_map([], |row| Ok((LeaseId(row.get(0)?), row.get(1)?)))?;
        rows.collect()
    }

    /// Forgets all values but those of now, in the file and in its log.
    pub(super) fn compact(&mut self) -> Result<()> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.prepare_cached(FORGET)?.execute([number(self.revision)])?;
        tx.execute("UPDATE state SET compacted = revision", [])?;
        tx.commit()?;
        self.compacted = self.revision;
        self.history.clear();
        // A reader that is in the way leaves the rest to the next time.
        self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// Runs one transaction: `decide` reads and says what to write (`None`: a conflict), the rest is the same for all.
    fn write(
        &mut self,
        decide: impl FnOnce(&Transaction<'_>) -> Result<Option<NetWrites>>,
    ) -> Result<(Outcome, Vec<Change>)> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Some(writes) = decide(&tx)? else { return Ok((Outcome::Conflict, Vec::new())) };
        let revision = self.revision + 1;
        let weight = Weight { revision, changes: writes.len(), bytes: bytes_of(&writes) };
        let mut changes = Vec::with_capacity(writes.len());
        for (key, write) in writes {
            changes.push(apply(&tx, revision, key, write)?);
        }
        let revision = if changes.is_empty() { self.revision } else { revision };
        let excess = if changes.is_empty() { 0 } else { excess(&self.history, weight, self.options) };
        let compacted = excess.checked_sub(1).map_or(self.compacted, |last| self.history[last].revision);
        if compacted > self.compacted {
            tx.prepare_cached(FORGET)?.execute([number(compacted)])?;
        }
        if revision > self.revision {
            let sql = "UPDATE state SET revision = ?1, compacted = ?2";
            tx.prepare_cached(sql)?.execute([number(revision), number(compacted)])?;
        }
        tx.commit()?;
        if revision > self.revision {
            self.history.push_back(weight);
            self.history.drain(..excess);
        }
        (self.revision, self.compacted) = (revision, compacted);
        Ok((Outcome::Done(revision), changes))
    }
}

/// Forgets the values up to a revision that keys do not have any more.
const FORGET: &str = "DELETE FROM changes WHERE revision <= ?1 AND NOT EXISTS
    (SELECT 1 FROM entries e WHERE e.key = changes.key AND e.revision = changes.revision)";

/// What a transaction does to each key in the end; `None`: removes it. Only keys that this changes.
type NetWrites = BTreeMap<String, Option<(Vec<u8>, Option<LeaseId>)>>;

/// Says whether the file is empty; refuses what is no store of ours.
fn check_kind(conn: &Connection) -> Result<bool, OpenError> {
    let int = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let (application, schema) = (int("application_id")?, int("user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, schema, tables) {
        (0, 0, 0) => Ok(true),
        (APPLICATION, SCHEMA, _) => Ok(false),
        (APPLICATION, newer, _) => {
            Err(OpenError::Refused(format!("it has format {newer} and this orch reads {SCHEMA}: use the newer orch")))
        }
        _ => Err(OpenError::Refused("it is a database of another program".to_owned())),
    }
}

fn read_history(conn: &Connection, compacted: StoreRevision) -> Result<VecDeque<Weight>> {
    let sql = "SELECT revision, count(*), coalesce(sum(length(value)), 0) FROM changes WHERE revision > ?1
               GROUP BY revision ORDER BY revision";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([number(compacted)], |row| {
        Ok(Weight { revision: revision_of(row, 0)?, changes: size_of(row, 1)?, bytes: size_of(row, 2)? })
    })?;
    rows.collect()
}

/// Returns how many of the oldest revisions must go once `new` is there. A quarter more than needed, so that the next
/// transactions have no such work; never `new` itself.
fn excess(history: &VecDeque<Weight>, new: Weight, bounds: Options) -> usize {
    let (mut changes, mut bytes) =
        history.iter().fold((new.changes, new.bytes), |(c, b), weight| (c + weight.changes, b + weight.bytes));
    if changes <= bounds.changes && bytes <= bounds.bytes {
        return 0;
    }
    let mut gone = 0;
    for weight in history {
        if changes <= bounds.changes / 4 * 3 && bytes <= bounds.bytes / 4 * 3 {
            break;
        }
        changes -= weight.changes;
        bytes -= weight.bytes;
        gone += 1;
    }
    gone
}

fn holds(tx: &Transaction<'_>, compare: &Compare) -> Result<bool> {
    let (key, wanted) = match compare {
        Compare::Absent(key) => (key, None),
        Compare::Modified(key, revision) => (key, Some(number(*revision))),
    };
    let mut statement = tx.prepare_cached("SELECT revision FROM entries WHERE key = ?1")?;
    let found = statement.query_row([key], |row| row.get::<_, i64>(0)).optional()?;
    Ok(found == wanted)
}

/// Resolves prefixes and keeps the last write of each key.
fn net_writes(tx: &Transaction<'_>, writes: &[Write]) -> Result<NetWrites> {
    let mut net = NetWrites::new();
    for write in writes {
        match write {
            Write::Put { key, value, lease } => {
                net.insert(key.clone(), Some((value.clone(), *lease)));
            }
            Write::Delete(key) => {
                net.insert(key.clone(), None);
            }
            Write::DeletePrefix(prefix) => {
                for (_, write) in net.iter_mut().filter(|(key, _)| key.starts_with(prefix.as_str())) {
                    *write = None;
                }
                let mut statement = tx.prepare_cached("SELECT key FROM entries WHERE key >= ?1 ORDER BY key")?;
                for key in statement.query_map([prefix], |row| row.get::<_, String>(0))? {
                    let key = key?;
                    if !key.starts_with(prefix.as_str()) {
                        break;
                    }
                    net.insert(key, None);
                }
            }
        }
    }
    let mut exists = tx.prepare_cached("SELECT 1 FROM entries WHERE key = ?1")?;
    let mut absent = Vec::new();
    for (key, _) in net.iter().filter(|(_, write)| write.is_none()) {
        if !exists.exists([key])? {
            absent.push(key.clone());
        }
    }
    for key in &absent {
        net.remove(key);
    }
    Ok(net)
}

fn apply(
    tx: &Transaction<'_>,
    revision: StoreRevision,
    key: String,
    write: Option<(Vec<u8>, Option<LeaseId>)>,
) -> Result<Change> {
    let mut insert =
        tx.prepare_cached("INSERT INTO changes (revision, key, value, created, lease) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let Some((value, lease)) = write else {
        insert.execute((number(revision), &key, None::<&[u8]>, None::<i64>, None::<i64>))?;
        tx.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([&key])?;
        return Ok(Change::Deleted(key, revision));
    };
    let mut before =
        tx.prepare_cached("SELECT created FROM entries JOIN changes USING (key, revision) WHERE key = ?1")?;
    let created = before.query_row([&key], |row| revision_of(row, 0)).optional()?.unwrap_or(revision);
    let id = lease.map(|lease| lease.0);
    insert.execute((number(revision), &key, &value, number(created), id))?;
    tx.prepare_cached("INSERT OR REPLACE INTO entries (key, revision, lease) VALUES (?1, ?2, ?3)")?.execute((
        &key,
        number(revision),
        id,
    ))?;
    Ok(Change::Put(Entry { key, value, created, modified: revision, lease }))
}

fn bytes_of(writes: &NetWrites) -> usize {
    writes.values().flatten().map(|(value, _)| value.len()).sum()
}

/// SQLite's integers are signed; a store would have to write a million times a second for 290,000 years to notice.
fn number(revision: StoreRevision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn revision_of(row: &Row<'_>, index: usize) -> Result<StoreRevision> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, number))
}

fn size_of(row: &Row<'_>, index: usize) -> Result<usize> {
    let number: i64 = row.get(index)?;
    usize::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, number))
}

/// Reads `key, value, created, revision, lease`.
fn entry_of(row: &Row<'_>) -> Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: row.get(1)?,
        created: revision_of(row, 2)?,
        modified: revision_of(row, 3)?,
        lease: row.get::<_, Option<i64>>(4)?.map(LeaseId),
    })
}

#[cfg(test)]
impl Db {
    /// Returns how many rows of history and state there are.
    pub(super) fn count_changes(&self) -> Result<i64> {
        self.conn.query_row("SELECT count(*) FROM changes", [], |row| row.get(0))
    }

    /// Lets the file grow to so many pages, as a full disk would.
    pub(super) fn limit_pages(&self, pages: i64) -> Result<()> {
        self.conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
    }
}
