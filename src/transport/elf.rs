//! The little that orch must know of its own binary's file: whether it can run alone, and the id its linker gave it.
//!
//! Source: elf(5); 64-bit little-endian only, which is what orch is built for. Other files have neither.

/// Size of the first part of a file that holds all that is read here, as linkers lay it out.
pub(super) const HEAD: usize = 64 << 10;

const PT_INTERP: u64 = 3;
const PT_NOTE: u64 = 4;
const NT_GNU_BUILD_ID: u64 = 3;

/// Returns whether the file names a dynamic loader.
pub(super) fn needs_loader(file: &[u8]) -> bool {
    segments(file).any(|segment| segment.kind == PT_INTERP)
}

/// Returns the id that the linker made from what it linked (a note of type `NT_GNU_BUILD_ID`).
pub(super) fn build_id(file: &[u8]) -> Option<&[u8]> {
    segments(file).filter(|segment| segment.kind == PT_NOTE).find_map(|segment| {
        let mut notes = slice(file, segment.offset, segment.size)?;
        while let (Some(name), Some(size), Some(kind)) = (number(notes, 0, 4), number(notes, 4, 4), number(notes, 8, 4))
        {
            let content = 12 + name.next_multiple_of(4);
            let id = slice(notes, content, size)?;
            if kind == NT_GNU_BUILD_ID && slice(notes, 12, name) == Some(b"GNU\0") && !id.is_empty() {
                return Some(id);
            }
            notes = notes.get(usize::try_from(content + size.next_multiple_of(4)).ok()?..)?;
        }
        None
    })
}

/// A program header.
struct Segment {
    kind: u64,
    offset: u64,
    size: u64,
}

fn segments(file: &[u8]) -> impl Iterator<Item = Segment> {
    let is_elf = file.starts_with(b"\x7fELF\x02\x01");
    let header = (number(file, 32, 8), number(file, 54, 2), number(file, 56, 2));
    let (table, size, count) = match header {
        (Some(table), Some(size), Some(count)) if is_elf => (table, size, count),
        _ => (0, 0, 0),
    };
    (0..count).map_while(move |index| {
        let at = size.checked_mul(index)?.checked_add(table)?;
        Some(Segment {
            kind: number(file, at, 4)?,
            offset: number(file, at.checked_add(8)?, 8)?,
            size: number(file, at.checked_add(32)?, 8)?,
        })
    })
}

fn slice(bytes: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(len)?).ok()?)
}

fn number(bytes: &[u8], at: u64, len: u64) -> Option<u64> {
    Some(slice(bytes, at, len)?.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one program header of this type, which covers `content`.
    fn elf(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64 + 56, 0);
        (file[32], file[54], file[56], file[64]) = (64, 56, 1, kind);
        (file[72], file[96]) = (120, u8::try_from(content.len()).expect("short"));
        file.extend(content);
        file
    }

    fn note(owner: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
        [[4, 0, 0, 0, 4, 0, 0, 0, kind, 0, 0, 0].as_slice(), owner, content].concat()
    }

    #[test]
    fn dynamic_binaries_are_found() {
        assert!(needs_loader(&elf(3, b"")));
        assert!(!needs_loader(&elf(1, b"")));
        assert!(!needs_loader(b"#!/bin/sh"));
        assert!(!needs_loader(b"\x7fELF\x02\x01 cut off"));
    }

    #[test]
    fn the_linkers_id_is_found_among_notes() {
        let notes = [note(b"GNU\0", 1, b"abcd"), note(b"Go\0\0", 3, b"efgh"), note(b"GNU\0", 3, b"ijkl")].concat();
        assert_eq!(build_id(&elf(4, &notes)), Some(b"ijkl".as_slice()));
        assert_eq!(build_id(&elf(4, &notes[..40])), None);
        assert_eq!(build_id(&elf(1, &notes)), None);
        let mut long = notes;
        long[0] = 0xff;
        (long[1], long[2], long[3]) = (0xff, 0xff, 0xff);
        assert_eq!(build_id(&elf(4, &long)), None);
    }
}
