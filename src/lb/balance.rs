//! What a service's `x-balance` means for the choice of a pod: by what it is made, what of a request or client counts in it,
//! and by what name a cookie knows a pod.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::choose::luck;
use super::endpoint::PortKey;
use super::outlier::Others;
use super::pick::{By, Candidate, Choice, Class, stable_hash};
use super::routing::{Pool, Target};
use crate::ids::PodId;
use crate::model::{Algorithm, Balance, HashKey, Sticky};

/// What a cookie says: hexadecimal digits that tell one pod from another and nothing else of it.
///
/// A digest of the container's id, so that a pod which was made anew, and has forgotten its clients, has another one; which the engine drew by lot and which no client ever sees. So all hosts agree on it
/// without a word, and nobody can tell a pod's name, number or host from it, nor find out the token of another pod.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Token([u8; TOKEN]);

/// Digits of a token.
const TOKEN: usize = 32;

/// What a client or request says that a choice may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wish {
    /// What its header or cookie is, hashed; `None`: what counts is its source.
    pub(super) key: Option<u64>,
    /// The pod that its cookie names.
    pub(super) token: Option<Token>,
}

/// A service's way of choosing, with what it needs to remember.
#[derive(Debug, Default)]
pub(super) struct Balanced {
    balance: Balance,
    turn: Arc<AtomicU64>,
    is_weighted: bool,
    /// Pods by what cookies call them, where cookies count.
    tokens: HashMap<Token, usize>,
}

/// What excludes or disfavours single pods in one choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) port: PortKey,
    pub(super) now: Duration,
    pub(super) client: IpAddr,
    pub(super) wish: Wish,
}

impl Token {
    pub(super) fn of(container: &str) -> Self {
        // Another use of the same id must not come to the same digits.
        let digest = Sha256::new().chain_update("orch sticky cookie\0").chain_update(container).finalize();
        let mut digits = [0; TOKEN];
        for (at, digit) in digits.iter_mut().enumerate() {
            let half = digest[at / 2] >> (4 * (at % 2)) & 15;
            *digit = b"0123456789abcdef"[usize::from(half)];
        }
        Self(digits)
    }

    /// Reads what a client sent.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        value.try_into().ok().map(Self)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.0.escape_ascii())
    }
}

impl Balanced {
    pub(super) fn new(balance: &Balance, turn: Arc<AtomicU64>, targets: &[Target]) -> Self {
        let tokens = match balance.sticky {
            Some(_) => targets.iter().map(|target| Token::of(&target.state.container)).zip(0..).collect(),
            None => HashMap::new(),
        };
        Self { balance: balance.clone(), turn, is_weighted: !balance.weights.is_empty(), tokens }
    }

    /// Returns what of a request is looked at, if anything.
    pub(super) fn key(&self) -> Option<&HashKey> {
        match &self.balance.algorithm {
            Algorithm::Hash(key) => Some(key),
            Algorithm::LeastConnections | Algorithm::RoundRobin | Algorithm::PowerOfTwo => None,
        }
    }

    /// Returns the cookie by which clients keep their pods.
    pub(super) fn sticky(&self) -> Option<&Sticky> {
        self.balance.sticky.as_ref()
    }

    /// Returns whether pods that answer badly are passed over.
    pub(super) fn ejects(&self) -> bool {
        self.balance.eject.is_some()
    }
}

impl Pool {
    /// Returns how a target is chosen now.
    pub(super) fn choice(&self, look: &Look) -> Choice {
        let by = match self.balanced.balance.algorithm {
            Algorithm::LeastConnections => By::LeastConnections,
            Algorithm::PowerOfTwo => By::PowerOfTwo,
            Algorithm::RoundRobin => By::Turn(self.balanced.turn.fetch_add(1, Ordering::Relaxed)),
            Algorithm::Hash(_) => By::Key(look.wish.key.unwrap_or_else(|| key_of(look.client))),
        };
        Choice { by, is_weighted: self.balanced.is_weighted, luck: luck() }
    }

    /// Returns what a choice sees of a target.
    pub(super) fn candidate(&self, target: &Target, look: &Look) -> Candidate {
        let Look { port, now, .. } = *look;
        let (state, host) = (&target.state, target.remote.as_ref());
        let Balanced { balance, is_weighted, .. } = &self.balanced;
        let is_near_first = !is_weighted && self.balanced.key().is_none();
        let class = Class {
            marked_down: state.is_marked_down(port, now) || host.is_some_and(|host| host.is_marked_down(now)),
            passed_over: balance.eject.is_some() && state.is_passed_over(port, now),
            spare: target.weight == 0,
            remote: is_near_first && host.is_some(),
        };
        Candidate { class, in_flight: state.open(), weight: target.weight.max(1), seed: target.seed }
    }

    /// Returns the target that a cookie names, unless others are to be preferred to it.
    pub(super) fn named(&self, look: &Look) -> Option<usize> {
        let index = *self.balanced.tokens.get(&look.wish.token?)?;
        let Class { marked_down, passed_over, .. } = self.candidate(&self.targets[index], look).class;
        (!marked_down && !passed_over).then_some(index)
    }

    /// Returns the cookie that a client of a target gets, as `Set-Cookie` says it, unless it has it.
    pub(super) fn cookie_for(&self, index: usize, wish: Wish, is_tls: bool) -> Option<String> {
        let Sticky { cookie, ttl } = self.balanced.sticky()?;
        let named = wish.token.and_then(|token| self.balanced.tokens.get(&token));
        if named == Some(&index) {
            return None;
        }
        let token = Token::of(&self.targets[index].state.container);
        let secure = if is_tls { "; Secure" } else { "" };
        let max_age = ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs().max(1))).unwrap_or_default();
        Some(format!("{cookie}={token}; Path=/; HttpOnly; SameSite=Lax{secure}{max_age}"))
    }

    /// Notes that a target failed at `port`, which may have it passed over.
    pub(super) fn note_ill(&self, index: usize, port: PortKey, now: Duration) {
        let Some(rule) = &self.balanced.balance.eject else { return };
        let state = &self.targets[index].state;
        let others = || {
            let others = self.targets.iter().enumerate().filter(|(other, _)| *other != index);
            let passed_over = others.filter(|(_, other)| other.state.is_ejected(now)).count();
            Others { all: self.targets.len(), passed_over }
        };
        let before = state.is_ejected(now);
        state.note_ill(port, rule, now, others);
        if !before && state.is_ejected(now) {
            let Target { pod, .. } = &self.targets[index];
            tracing::warn!(project = %self.project, %pod, "failed too often: other pods are preferred for a while");
        }
    }
}

/// Returns by what keys find a pod on this host and on every other: its number, so that one which was made anew gets the
/// same ones.
pub(super) fn seed_of(pod: &PodId) -> u64 {
    stable_hash(pod.to_string().as_bytes())
}

/// Returns the key of a client.
fn key_of(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => stable_hash(&address.octets()),
        IpAddr::V6(address) => stable_hash(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_pods_apart_and_nothing_else() {
        let (one, other) = (Token::of("3f1c"), Token::of("3f1d"));
        assert_ne!(one, other);
        assert_eq!(one, Token::of("3f1c"), "all hosts agree");
        let text = one.to_string();
        assert!(text.len() == TOKEN && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(Token::read(text.as_bytes()), Some(one));
        for bad in ["", "3f1c", &"0".repeat(33)] {
            assert_eq!(Token::read(bad.as_bytes()), None);
        }
    }

    #[test]
    fn one_client_has_one_key_whatever_the_socket_calls_it() {
        let [plain, mapped] = ["192.0.2.7", "::ffff:192.0.2.7"].map(|text| key_of(text.parse().expect("an address")));
        assert_eq!(plain, mapped);
        assert_ne!(plain, key_of("192.0.2.8".parse().expect("an address")));
    }
}
