//! What a request says that the choice of its pod may depend on: a header field or cookie that is hashed, and the cookie
//! that names the pod it got before. Pure; both paths ask it, each with its own way to look up a field.

use crate::lb::balance::{Balanced, Token, Wish};
use crate::lb::pick::stable_hash;
use crate::model::HashKey;

/// Gives each value of the fields of a name, in their order.
pub(super) type Values<'f, 'v> = &'f dyn Fn(&str, &mut dyn FnMut(&'v [u8]));

/// Returns what a request for `host` says. What is empty counts as absent, and of several the first one counts.
pub(super) fn wish<'v>(balanced: &Balanced, host: &'v [u8], values: Values<'_, 'v>) -> Wish {
    let said = match balanced.key() {
        None | Some(HashKey::Source) => None,
        // The only field that HTTP/2 has elsewhere.
        Some(HashKey::Header(name)) if name == "host" => Some(host),
        Some(HashKey::Header(name)) => {
            let mut first = None;
            values(name, &mut |value| {
                first.get_or_insert(value);
            });
            first.map(<[u8]>::trim_ascii)
        }
        Some(HashKey::Cookie(name)) => cookie(name, values),
    };
    let key = said.filter(|said| !said.is_empty()).map(stable_hash);
    let token = balanced.sticky().and_then(|sticky| Token::read(cookie(&sticky.cookie, values)?));
    Wish { key, token }
}

/// Returns the value of a cookie. Source: RFC 6265, section 4.2; HTTP/2 may split the field (RFC 9113, section 8.2.3).
fn cookie<'v>(name: &str, values: Values<'_, 'v>) -> Option<&'v [u8]> {
    let mut found = None;
    values("cookie", &mut |line| {
        for pair in line.split(|byte| *byte == b';') {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let is_meant = parts.next().is_some_and(|found| found.trim_ascii() == name.as_bytes());
            if let Some(value) = parts.next().filter(|_| is_meant) {
                found.get_or_insert(value.trim_ascii());
            }
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Algorithm, Balance, Sticky};
    use proptest::prelude::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn of(algorithm: Algorithm, fields: &str) -> Wish {
        let sticky = Some(Sticky { cookie: "s".to_owned(), ttl: None });
        let balance = Balance { algorithm, sticky, ..Balance::default() };
        let balanced = Balanced::new(&balance, std::sync::Arc::default(), &[]);
        wish(&balanced, b"x.test", &|name, each| {
            let fields = fields.split('|').filter_map(|field| field.split_once(": "));
            fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).for_each(|(_, value)| each(value.as_bytes()));
        })
    }

    #[test]
    fn what_is_hashed_is_the_first_that_says_something() {
        let header = |name: &str, fields| of(Algorithm::Hash(HashKey::Header(name.to_owned())), fields).key;
        assert_eq!(header("x-user", "A: b|X-User: ann|x-user: bob"), Some(stable_hash(b"ann")));
        assert_eq!(header("x-user", "A: b"), None);
        assert_eq!(header("x-user", "X-User: "), None);
        assert_eq!(header("host", ""), Some(stable_hash(b"x.test")));
        let cookie = |fields| of(Algorithm::Hash(HashKey::Cookie("id".to_owned())), fields).key;
        assert_eq!(cookie("Cookie: a=b; id=7; id=8|Cookie: id=9"), Some(stable_hash(b"7")));
        assert_eq!(cookie("Cookie: a=b|cookie: c=d;id=7"), Some(stable_hash(b"7")));
        assert_eq!(cookie("Cookie: id=a=b"), Some(stable_hash(b"a=b")));
        for none in ["", "Cookie: idx=7; xid=7", "Cookie: id", "Cookie: id=", "Cookie: ID=7", "Id: 7"] {
            assert_eq!(cookie(none), None, "{none}");
        }
        for algorithm in [Algorithm::RoundRobin, Algorithm::Hash(HashKey::Source)] {
            assert_eq!(of(algorithm, "Cookie: id=7").key, None);
        }
    }

    #[test]
    fn a_cookie_names_a_pod_or_nothing() {
        let token = |fields: &str| of(Algorithm::RoundRobin, fields).token;
        assert_eq!(token(&format!("Cookie: a=b; s={TOKEN}")), Token::read(TOKEN.as_bytes()));
        for none in ["", "Cookie: s=", "Cookie: s=web.1", "Cookie: t=0123456789abcdef0123456789abcdef"] {
            assert_eq!(token(none), None, "{none}");
        }
    }

    /// What is said by cookies alone, where `s` is both hashed and a pod's.
    fn of_cookies(fields: &[&[u8]]) -> Wish {
        let sticky = Some(Sticky { cookie: "s".to_owned(), ttl: None });
        let algorithm = Algorithm::Hash(HashKey::Cookie("s".to_owned()));
        let balance = Balance { algorithm, sticky, ..Balance::default() };
        let balanced = Balanced::new(&balance, std::sync::Arc::default(), &[]);
        wish(&balanced, b"x.test", &|name, each| {
            fields.iter().filter(|_| name == "cookie").for_each(|field| each(field));
        })
    }

    proptest! {
        #![proptest_config(crate::lb::tests::tries(3000))]

        #[test]
        fn a_cookie_is_found_where_it_stands_however_the_fields_are_divided(
            fields in proptest::collection::vec(
                proptest::collection::vec(
                    prop_oneof![
                        4 => Just(b"s=".to_vec()),
                        4 => Just(TOKEN.as_bytes().to_vec()),
                        4 => Just(b";".to_vec()),
                        1 => Just(b"S=".to_vec()),
                        1 => Just(b"xs=".to_vec()),
                        1 => Just(b"\"".to_vec()),
                        1 => Just(b" ".to_vec()),
                        2 => proptest::collection::vec(any::<u8>(), 0..6),
                        1 => proptest::collection::vec(any::<u8>(), 1000..2000),
                    ],
                    0..8,
                ),
                0..4,
            ),
        ) {
            let fields: Vec<Vec<u8>> = fields.into_iter().map(|pieces| pieces.concat()).collect();
            let whole: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            let crumbs: Vec<&[u8]> = fields.iter().flat_map(|field| field.split(|byte| *byte == b';')).collect();
            let found = of_cookies(&whole);
            prop_assert_eq!(of_cookies(&crumbs), found);
            let mut among: Vec<&[u8]> = vec![b"a=b; xs=1; S=2; s; =3"];
            among.extend(&whole);
            among.push(b"c=d");
            prop_assert_eq!(of_cookies(&among), found, "others change nothing");
            let says = |crumb: &&[u8]| {
                let rest = crumb.trim_ascii().strip_prefix(b"s");
                rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
            };
            let first = crumbs.iter().copied().find(says);
            prop_assert!(found.key.is_none() || first.is_some(), "nobody said it");
            if let Some(token) = found.token {
                let named = first.and_then(|crumb| crumb.trim_ascii().last_chunk::<{ TOKEN.len() }>());
                prop_assert_eq!(named.and_then(|named| Token::read(named)), Some(token), "another one's");
            }
        }
    }
}
