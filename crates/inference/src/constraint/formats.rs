//! The values of `format` that are enforced, as regular expressions. All other values are annotations.

use super::pattern::Pattern;
use super::text_set::TextSet;

/// Names that [`sets`] knows.
pub const FORMATS: [&str; 10] = [
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
];

/// Years that readers of dates take. RFC 3339 also has the year 0.
const YEAR: &str = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})";
/// Years that are divisible by 4; centuries only if they are divisible by 400.
const LEAP_YEAR: &str =
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
const DAY: &str = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
const HOUR: &str = "(?:[01][0-9]|2[0-3])";
/// RFC 1123: up to 63 letters, digits and hyphens.
const LABEL: &str = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
const OCTET: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const ATOM: &str = r"[a-zA-Z0-9!#$%&'*+\-/=?\^_`{|}~]+";
const GROUP: &str = "[0-9a-fA-F]{1,4}";
const PCHAR: &str = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})";
const PORT: &str =
    "(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const ANY: &str = "(?s:.*)";

/// A set of strings as expressions: see [`TextSet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FormatSet {
    pub(super) written: String,
    wider: Option<Wider>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wider {
    all: String,
    members: String,
    check: Check,
}

/// A condition that no expression of bounded size can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    /// A 61st second is one of the last minute of a day in UTC.
    Time,
    DateTime,
}

impl FormatSet {
    fn exact(written: String) -> Self {
        FormatSet {
            written,
            wider: None,
        }
    }

    /// Not all of the standard's strings are written.
    fn narrow(written: String, all: String) -> Self {
        FormatSet::checked(written, all, Check::Nothing)
    }

    fn checked(written: String, all: String, check: Check) -> Self {
        let members = all.clone();
        FormatSet {
            written,
            wider: Some(Wider {
                all,
                members,
                check,
            }),
        }
    }

    pub(super) fn texts(&self) -> TextSet {
        let written = Pattern::whole(&self.written);
        let Some(wider) = &self.wider else {
            return TextSet::exact(written);
        };
        let check: fn(&str) -> bool = match wider.check {
            Check::Nothing => |_| true,
            Check::Time => has_possible_second,
            Check::DateTime => |text| text.get(11..).is_some_and(has_possible_second),
        };
        let (all, members) = (Pattern::whole(&wider.all), Pattern::whole(&wider.members));
        TextSet::between(written, all, members, check)
    }
}

/// Sets in all of which the strings of a format are.
pub(super) fn sets(name: &str) -> Option<Vec<FormatSet>> {
    let host = || format!(r"{LABEL}(?:\.{LABEL})*");
    Some(match name {
        "date" => vec![FormatSet::narrow(date(), any_date())],
        "time" => vec![FormatSet::checked(time(), any_time(), Check::Time)],
        "date-time" => vec![FormatSet::checked(
            format!("{}[tT]{}", date(), time()),
            format!("{}[tT]{}", any_date(), any_time()),
            Check::DateTime,
        )],
        "duration" => vec![FormatSet::narrow(duration(), in_either_case(&duration()))],
        "email" => email(&host()),
        "hostname" => vec![
            FormatSet::exact(host()),
            FormatSet::exact(".{1,253}".to_owned()),
        ],
        "ipv4" => vec![FormatSet::exact(ipv4())],
        "ipv6" => vec![FormatSet::exact(ipv6())],
        "uuid" => vec![FormatSet::exact(
            "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
                .to_owned(),
        )],
        "uri" => vec![FormatSet::narrow(uri(), any_uri())],
        _ => return None,
    })
}

fn date() -> String {
    format!("(?:{YEAR}-{DAY}|{LEAP_YEAR}-02-29)")
}

fn any_date() -> String {
    format!("(?:[0-9]{{4}}-{DAY}|(?:{LEAP_YEAR}|0000)-02-29)")
}

fn offset() -> String {
    format!("(?:[zZ]|[+-]{HOUR}:[0-5][0-9])")
}

/// RFC 3339, with leap seconds in UTC only, and nanoseconds at the finest.
fn time() -> String {
    let (fraction, offset) = (r"(?:\.[0-9]{1,9})?", offset());
    let usual = format!("{HOUR}:[0-5][0-9]:[0-5][0-9]{fraction}{offset}");
    format!("(?:{usual}|23:59:60{fraction}(?:[zZ]|[+-]00:00))")
}

/// With a leap second in every minute: see [`has_possible_second`].
fn any_time() -> String {
    format!(
        r"{HOUR}:[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?{}",
        offset()
    )
}

/// Whether a time by [`any_time`] is one of RFC 3339: only the last minute of a day in UTC has a 61st second.
fn has_possible_second(time: &str) -> bool {
    if time.get(6..8) != Some("60") {
        return true;
    }
    let minutes = |at: usize| {
        let number = |at: usize| time.get(at..at + 2)?.parse::<i32>().ok();
        Some(60 * number(at)? + number(at + 3)?)
    };
    let offset = match time.find(['+', '-']) {
        Some(at) => minutes(at + 1).map(|offset| match time.as_bytes()[at] {
            b'-' => -offset,
            _ => offset,
        }),
        None => Some(0),
    };
    let in_utc = minutes(0).zip(offset);
    in_utc.is_some_and(|(local, offset)| (local - offset).rem_euclid(24 * 60) == 24 * 60 - 1)
}

fn duration() -> String {
    let time = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)";
    format!(
        "P(?:(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)(?:{time})?|{time}|[0-9]+W)"
    )
}

/// An expression whose letters all stand for themselves, in upper case and in lower case.
fn in_either_case(regex: &str) -> String {
    let either = |c: char| match c.is_ascii_uppercase() {
        true => format!("[{c}{}]", c.to_ascii_lowercase()),
        false => c.to_string(),
    };
    regex.chars().map(either).collect()
}

/// Addresses without quotes are written. RFC 5321 has others, and RFC 5322, which older drafts name, has comments and
/// folded lines: only what has no `@` is surely none.
fn email(host: &str) -> Vec<FormatSet> {
    let label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
    let quoted = r#""(?:[ !#-\[\]-~]|\\[ -~])*""#;
    let literal = format!(r"\[(?:{}|[iI][pP][vV]6:{})\]", ipv4(), ipv6());
    let atoms = format!(r"{ATOM}(?:\.{ATOM})*");
    let form = FormatSet {
        written: format!("{atoms}@{host}"),
        wider: Some(Wider {
            all: format!("{ANY}@{ANY}"),
            members: format!(r"(?:{atoms}|{quoted})@(?:{label}(?:\.{label})*|{literal})"),
            check: Check::Nothing,
        }),
    };
    // Lengths that every mail server takes; longer ones aren't wrong.
    let lengths = FormatSet::narrow("[^@]{1,64}@.{1,189}".to_owned(), ANY.to_owned());
    vec![form, lengths]
}

fn ipv4() -> String {
    format!(r"(?:{OCTET}\.){{3}}{OCTET}")
}

/// RFC 4291, as RFC 3986 has it: eight groups, or fewer with one gap; the last two may be an IPv4 address.
fn ipv6() -> String {
    let last = format!("(?:{GROUP}:{GROUP}|{})", ipv4());
    let mut forms = vec![format!("(?:{GROUP}:){{6}}{last}")];
    for after in 0..=7 {
        let left = match 7 - after {
            0 => String::new(),
            most => format!("(?:(?:{GROUP}:){{0,{}}}{GROUP})?", most - 1),
        };
        let right = match after {
            0 => String::new(),
            1 => GROUP.to_owned(),
            2 => last.clone(),
            more => format!("(?:{GROUP}:){{{}}}{last}", more - 2),
        };
        forms.push(format!("{left}::{right}"));
    }
    format!("(?:{})", forms.join("|"))
}

const USER: &str = r"(?:(?:[a-zA-Z0-9\-._~!$&'()*+,;=:]|%[0-9a-fA-F]{2})*@)?";
const HOST_CHARACTER: &str = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=]|%[0-9a-fA-F]{2})";

/// RFC 3986, with ports that exist. Without a host there is a path.
fn uri() -> String {
    let host = format!(r"(?:\[{}\]|{HOST_CHARACTER}+)", ipv6());
    let path = format!("(?:/{PCHAR}*)");
    let hierarchy = format!("//(?:{USER}{host}(?::{PORT})?{path}*|{path}+)");
    uri_with(&format!("(?:{hierarchy}|{})", path_alone()))
}

/// RFC 3986, all of it.
fn any_uri() -> String {
    let future = r"[vV][0-9a-fA-F]+\.[a-zA-Z0-9\-._~!$&'()*+,;=:]+";
    let host = format!(r"(?:\[(?:{}|{future})\]|{HOST_CHARACTER}*)", ipv6());
    let hierarchy = format!("//{USER}{host}(?::[0-9]*)?(?:/{PCHAR}*)*");
    uri_with(&format!("(?:{hierarchy}|{})?", path_alone()))
}

fn path_alone() -> String {
    format!("(?:/(?:{PCHAR}+(?:/{PCHAR}*)*)?|{PCHAR}+(?:/{PCHAR}*)*)")
}

fn uri_with(hierarchy: &str) -> String {
    let rest = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@/?]|%[0-9a-fA-F]{2})*";
    format!(r"[a-zA-Z][a-zA-Z0-9+\-.]*:{hierarchy}(?:\?{rest})?(?:#{rest})?")
}

#[cfg(test)]
mod tests {
    use super::super::pattern::all_of;
    use super::*;

    /// Strings that a format has and that are written, that it has but aren't written, and that it doesn't have.
    fn check(name: &str, written: &[&str], others: &[&str], outside: &[&str]) {
        let sets: Vec<_> = sets(name).unwrap().iter().map(FormatSet::texts).collect();
        let all_written = all_of(sets.iter().map(|set| &set.written)).unwrap();
        let is_in = |text: &str| sets.iter().all(|set| set.contains(text) == Some(true));
        for text in written {
            assert_eq!(all_written.contains(text), Some(true), "{text} is a {name}");
        }
        for text in others.iter().chain(outside) {
            let why = "isn't written as a";
            assert_eq!(
                all_written.contains(text),
                Some(false),
                "{text} {why} {name}"
            );
        }
        for text in written.iter().chain(others) {
            let may_be = |set: &TextSet| set.all().contains(text) == Some(true);
            assert!(is_in(text) && sets.iter().all(may_be), "{text} is a {name}");
        }
        for text in outside {
            assert!(!is_in(text), "{text} is no {name}");
        }
        let opposites: Vec<_> = sets.iter().map(TextSet::negated).collect();
        for text in written.iter().chain(others).chain(outside) {
            let is_out = opposites.iter().any(|set| set.contains(text) == Some(true));
            assert_eq!(is_out, !is_in(text), "{text} as the opposite of a {name}");
            let mut opposites = opposites.iter();
            let is_written = opposites.any(|set| set.written.contains(text) == Some(true));
            assert!(!is_written || is_out, "{text} is written as no {name}");
        }
    }

    #[test]
    fn a_format_is_what_its_standard_says() {
        check(
            "date",
            &["2024-02-29", "2000-02-29", "2023-12-31"],
            &["0000-01-01", "0000-02-29"],
            &[
                "2023-02-29",
                "1900-02-29",
                "2023-04-31",
                "2023-13-01",
                "999-01-01",
            ],
        );
        check(
            "time",
            &[
                "23:59:59Z",
                "00:00:00.5+01:00",
                "23:59:60Z",
                "23:59:60.5-00:00",
            ],
            &[
                "12:00:00.1234567890Z",
                "15:59:60.123-08:00",
                "00:29:60-23:30",
                "01:29:60+01:30",
            ],
            &[
                "24:00:00Z",
                "12:00:00",
                "23:59:61Z",
                "23:58:60Z",
                "22:59:60Z",
                "23:59:60+01:00",
            ],
        );
        check(
            "date-time",
            &["2024-02-29T00:00:00Z", "1990-12-31t23:59:60z"],
            &["1990-12-31T15:59:60-08:00", "0000-12-31T00:00:00Z"],
            &[
                "2023-02-29T00:00:00Z",
                "2024-01-01",
                "1990-12-31T12:00:60Z",
                "2024-02-29 00:00:00Z",
            ],
        );
        check(
            "duration",
            &["P1Y2M3DT4H5M6S", "PT1S", "P2W"],
            &["p1dt2h"],
            &["P", "PT", "1Y", "P1H", "P1Y1D", "P1\u{17f}"],
        );
        check(
            "email",
            &["a.b@example.com", "x@y", "x@xn--bcher-kva.de", "a@b--c"],
            &[
                "\"a b\"@c",
                "a@[127.0.0.1]",
                "a@[IPv6:::1]",
                &format!("{}@b", "a".repeat(65)),
            ],
            &["a..b@c", "@c", "a@-b", "a", "a@[127.0.0.300]", "a@b c"],
        );
        check(
            "hostname",
            &[
                "a",
                "a-b.example.com",
                "a--b",
                "xn--bcher-kva.de",
                &"a".repeat(63),
                &format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61)),
            ],
            &[],
            &[
                "-a",
                "a-",
                "a..b",
                "a.",
                "",
                "a_b",
                &"a".repeat(64),
                &format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(62)),
            ],
        );
        check(
            "ipv4",
            &["0.0.0.0", "255.255.255.255"],
            &[],
            &["256.0.0.1", "1.2.3", "01.2.3.4"],
        );
        check(
            "ipv6",
            &[
                "::",
                "::1",
                "1::",
                "1:2:3:4:5:6:7:8",
                "fe80::1:2",
                "1:2:3:4:5:6::8",
                "1:2:3:4:5:6:7::",
                "::2:3:4:5:6:7:8",
                "::ffff:1.2.3.4",
                "2001:db8::192.0.2.1",
                "1:2:3:4:5:6:1.2.3.4",
                "1:2:3:4:5::1.2.3.4",
                "::1.2.3.4",
            ],
            &[],
            &[
                "1:2:3",
                ":::",
                "1::2::3",
                "1:2:3:4:5:6:7:8:9",
                "1:2:3:4:5:6:7:8::",
                "12345::",
                "1:2:3:4:5:6:7:1.2.3.4",
                "1:2:3:4:5:6::1.2.3.4",
                "::1.2.3",
                "1.2.3.4::",
                "fe80::1%eth0",
            ],
        );
        check(
            "uuid",
            &["123e4567-e89b-12d3-a456-426614174000"],
            &[],
            &["123e4567e89b12d3a456426614174000"],
        );
        check(
            "uri",
            &[
                "https://a.example/b?c=d#e",
                "mailto:a@b",
                "urn:x:y",
                "http://1.2.3.4:80",
                "file:///etc/passwd",
                "file:///",
                "http://[::1]/",
                "http://u:p@[2001:db8::1.2.3.4]:65535/?#",
                "ldap://[2001:db8::7]/c=GB?objectClass?one",
            ],
            &[
                "http://",
                "a:",
                "a:?b",
                "http://[v1.x:y]/",
                "http://a:/",
                "http://a:65536",
                "http://u@/",
            ],
            &[
                "//a",
                "a b:c",
                "https://a b",
                "1:a",
                "http://[::1",
                "http://[1]",
                "a:%g0",
                "a:#b#c",
            ],
        );
        assert_eq!(sets("credit-card"), None);
        for name in FORMATS {
            assert!(sets(name).is_some(), "{name}");
        }
    }
}
