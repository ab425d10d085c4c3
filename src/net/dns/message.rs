//! Reading questions and writing answers. Pure: bytes in, bytes out.

use std::net::Ipv4Addr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::net::names::{APEX, Answer, RecordKind};

/// Largest UDP answer, also announced to clients: no fragments on any path. Source: DNS flag day 2020.
const UDP_PAYLOAD: u16 = 1232;

/// Largest UDP answer to a client without EDNS. Source: RFC 1035, 4.2.1.
const PLAIN_UDP_PAYLOAD: u16 = 512;

/// Length of a message's header.
const HEADER: usize = 12;

/// How a question came and its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

/// A well-formed question.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) id: u16,
    pub(super) query: Query,
    /// Lower case, without the final dot; bytes that no name of ours has are `\`.
    pub(super) name: String,
    pub(super) recursion_desired: bool,
    pub(super) authentic_data: bool,
    pub(super) checking_disabled: bool,
    pub(super) edns: Option<ClientEdns>,
    pub(super) protocol: Protocol,
}

/// What of a client's EDNS matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientEdns {
    pub(super) payload: u16,
    pub(super) dnssec_ok: bool,
}

/// What to do with a packet.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Answer it.
    Request(Box<Request>),
    /// Send this back.
    Refuse(Vec<u8>),
    /// Say nothing: it is not a question, and an answer could start a loop.
    Ignore,
}

/// Reads a packet.
pub(super) fn parse(packet: &[u8], protocol: Protocol) -> Parsed {
    let Some(header) = packet.first_chunk::<HEADER>() else { return Parsed::Ignore };
    if header[2] & 0x80 != 0 {
        return Parsed::Ignore;
    }
    // Looked at before the codec does: it makes room for as many questions as the header claims.
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (questions, answers, authorities) = (count(4), count(6), count(8));
    if header[2] & 0x78 != 0 {
        return Parsed::Refuse(header_only(header, ResponseCode::NotImp));
    }
    if (questions, answers, authorities) != (1, 0, 0) {
        return Parsed::Refuse(header_only(header, ResponseCode::FormErr));
    }
    let Ok(mut message) = Message::from_vec(packet) else {
        return Parsed::Refuse(header_only(header, ResponseCode::FormErr));
    };
    let Some(query) = message.queries.pop() else {
        return Parsed::Refuse(header_only(header, ResponseCode::FormErr));
    };
    let edns = message.edns.as_ref();
    let request = Request {
        id: message.metadata.id,
        name: normal(query.name()),
        query,
        recursion_desired: message.metadata.recursion_desired,
        authentic_data: message.metadata.authentic_data,
        checking_disabled: message.metadata.checking_disabled,
        edns: edns.map(|edns| ClientEdns { payload: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok }),
        protocol,
    };
    if edns.is_some_and(|edns| edns.version() > 0) {
        return Parsed::Refuse(encode(request.failure(ResponseCode::BADVERS), &request));
    }
    let transfer = matches!(request.query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if request.query.query_class() != DNSClass::IN || transfer {
        return Parsed::Refuse(encode(request.failure(ResponseCode::Refused), &request));
    }
    Parsed::Request(Box::new(request))
}

/// Returns an answer of nothing but the header, for what cannot be read further: never longer than the question.
fn header_only(header: &[u8; HEADER], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | (header[2] & 0x79); // a response; opcode and "recursion desired" as in the question
    reply[3] = 0x80 | code.low(); // "recursion available"
    reply
}

/// Writes a name as the table has it.
fn normal(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name {
        if !text.is_empty() {
            text.push('.');
        }
        // A dot within a label would look like two labels.
        text.extend(label.iter().map(|byte| match byte {
            b'.' | 0..=b' ' | 0x7f.. => '\\',
            byte => char::from(byte.to_ascii_lowercase()),
        }));
    }
    text
}

impl Request {
    /// Returns what the table calls the type asked for.
    pub(super) fn kind(&self) -> RecordKind {
        match self.query.query_type() {
            RecordType::A | RecordType::ANY => RecordKind::A,
            RecordType::PTR => RecordKind::Ptr,
            RecordType::SRV => RecordKind::Srv,
            _ => RecordKind::Other,
        }
    }

    /// Returns an answer without records.
    pub(super) fn empty(&self) -> Message {
        let mut message = Message::new(self.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.queries.push(self.query.clone());
        // Made anew: echoing the client's options (cookies) would claim to understand them.
        message.edns = self.edns.map(|client| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(client.dnssec_ok);
            edns
        });
        message
    }

    /// Returns an answer that says why there is none.
    pub(super) fn failure(&self, code: ResponseCode) -> Message {
        let mut message = self.empty();
        message.metadata.response_code = code;
        message
    }

    /// Returns the message for an answer of the table. `rotation` says which of several addresses comes first.
    pub(super) fn local(&self, answer: &Answer<'_>, rotation: usize) -> Message {
        let mut message = self.empty();
        message.metadata.authoritative = true;
        let owner = self.query.name();
        match answer {
            Answer::Addresses { addresses, ttl_secs } => {
                let (tail, head) = addresses.split_at(rotation % addresses.len().max(1));
                message
                    .answers
                    .extend(head.iter().chain(tail).map(|address| a_record(owner.clone(), *ttl_secs, *address)));
            }
            Answer::Pointer { name, ttl_secs } => {
                let data = full_name(name).map(|name| RData::PTR(PTR(name)));
                message.answers.extend(data.map(|data| Record::from_rdata(owner.clone(), *ttl_secs, data)));
            }
            Answer::Services { records, ttl_secs } => {
                let (tail, head) = records.split_at(rotation % records.len().max(1));
                for record in head.iter().chain(tail) {
                    let Some(target) = full_name(record.target) else { continue };
                    let glue = a_record(target.clone(), *ttl_secs, record.address);
                    if !message.additionals.contains(&glue) {
                        message.additionals.push(glue);
                    }
                    let data = RData::SRV(SRV::new(0, 0, record.port, target));
                    message.answers.push(Record::from_rdata(owner.clone(), *ttl_secs, data));
                }
            }
            Answer::NoData { ttl_secs } => message.authorities.extend(self.start_of_authority(*ttl_secs)),
            Answer::NoName { ttl_secs } => {
                message.metadata.response_code = ResponseCode::NXDomain;
                message.authorities.extend(self.start_of_authority(*ttl_secs));
            }
            Answer::Forward { .. } | Answer::Refused => return self.failure(ResponseCode::Refused),
        }
        message
    }

    /// Returns the record by which a client knows how long to remember that there is nothing (RFC 2308). Short names
    /// have no zone above them, so they are their own.
    fn start_of_authority(&self, ttl_secs: u32) -> Option<Record> {
        let apex = full_name(APEX)?;
        let owner = if apex.zone_of(self.query.name()) { apex.clone() } else { self.query.name().clone() };
        let ttl = i32::try_from(ttl_secs).unwrap_or(i32::MAX);
        let data = SOA::new(apex.clone(), apex, 1, ttl, ttl, ttl, ttl_secs);
        Some(Record::from_rdata(owner, ttl_secs, RData::SOA(data)))
    }

    /// Returns how long an answer may be.
    pub(super) fn limit(&self) -> usize {
        usize::from(match (self.protocol, self.edns) {
            (Protocol::Tcp, _) => u16::MAX,
            (Protocol::Udp, Some(edns)) => edns.payload.clamp(PLAIN_UDP_PAYLOAD, UDP_PAYLOAD),
            (Protocol::Udp, None) => PLAIN_UDP_PAYLOAD,
        })
    }
}

fn a_record(owner: Name, ttl_secs: u32, address: Ipv4Addr) -> Record {
    Record::from_rdata(owner, ttl_secs, RData::A(A(address)))
}

fn full_name(text: &str) -> Option<Name> {
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Writes an answer so that it fits the client. What does not fit is left out and the truncation bit set; as many
/// answers as possible stay, since some resolvers (musl before 1.2.4) never ask again by TCP.
pub(super) fn encode(mut message: Message, request: &Request) -> Vec<u8> {
    let limit = request.limit();
    let mut bytes = Vec::with_capacity(512);
    loop {
        bytes.clear();
        if write(&message, &mut bytes).is_err() {
            return write_failure(request);
        }
        if bytes.len() <= limit {
            return bytes;
        }
        if !shorten(&mut message, limit, bytes.len()) {
            return write_failure(request);
        }
    }
}

/// Leaves out some records of a message that has `length` bytes instead of `limit`; returns whether there were any.
fn shorten(message: &mut Message, limit: usize, length: usize) -> bool {
    if !message.additionals.is_empty() {
        // Takes nothing away from the answer, so it is no truncation (RFC 2181, 9).
        message.additionals.clear();
        return true;
    }
    message.metadata.truncation = true;
    if !message.authorities.is_empty() {
        message.authorities.clear();
        return true;
    }
    let Some(fewer) = message.answers.len().checked_sub(1) else { return false };
    message.answers.truncate(fewer.min(message.answers.len() * limit / length));
    true
}

fn write(message: &Message, bytes: &mut Vec<u8>) -> Result<(), ProtoError> {
    let mut encoder = BinEncoder::new(bytes);
    message.emit(&mut encoder)
}

/// The answer where an answer could not be written: it holds nothing that could fail.
fn write_failure(request: &Request) -> Vec<u8> {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&request.id.to_be_bytes());
    header_only(&header, ResponseCode::ServFail)
}
