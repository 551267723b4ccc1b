//! The values of `format` that are enforced, as regular expressions. All other values are annotations.

/// The formats that [`regexes`] knows.
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

const YEAR: &str = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})";
/// Years that are divisible by 4; centuries only if they are divisible by 400.
const LEAP_YEAR: &str =
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
const DAY: &str = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
/// Without leap seconds (`:60`), which few moments have.
const TIME: &str = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
/// A label of a host name, without two hyphens in a row: up to 32 letters and digits, at most 63 characters with the
/// hyphens.
const LABEL: &str = "[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,31}";
const OCTET: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const ATOM: &str = r"[a-zA-Z0-9!#$%&'*+\-/=?\^_`{|}~]+";
const GROUP: &str = "[0-9a-fA-F]{1,4}";
const PCHAR: &str = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})";

/// Regular expressions that a string of this format must all match; `None` for an unknown format.
pub(super) fn regexes(name: &str) -> Option<Vec<String>> {
    let lengths = match name {
        "hostname" => Some(".{1,253}"),
        "email" => Some("[^@]{1,64}@.{1,189}"),
        _ => None,
    };
    let form = regex(name)?;
    Some(
        [form]
            .into_iter()
            .chain(lengths.map(str::to_owned))
            .collect(),
    )
}

fn regex(name: &str) -> Option<String> {
    let date = || format!("(?:{YEAR}-{DAY}|{LEAP_YEAR}-02-29)");
    let ipv4 = || format!(r"(?:{OCTET}\.){{3}}{OCTET}");
    let host = || format!(r"{LABEL}(?:\.{LABEL})*");
    Some(match name {
        "date" => date(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{}[tT]{TIME}", date()),
        "duration" => {
            let time = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)";
            format!(
                "P(?:(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)(?:{time})?|{time}|[0-9]+W)"
            )
        }
        "email" => format!(r"{ATOM}(?:\.{ATOM})*@{}", host()),
        "hostname" => host(),
        "ipv4" => ipv4(),
        "ipv6" => ipv6(),
        "uuid" => {
            "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}".to_owned()
        }
        "uri" => uri(&ipv4()),
        _ => return None,
    })
}

/// An IPv6 address: eight groups, or fewer with one `::`.
fn ipv6() -> String {
    let mut forms = vec![format!("(?:{GROUP}:){{7}}{GROUP}"), "::".to_owned()];
    for before in 0..8 {
        let left = match before {
            0 => String::new(),
            1 => GROUP.to_owned(),
            _ => format!("(?:{GROUP}:){{{}}}{GROUP}", before - 1),
        };
        let most = 7 - before;
        let right = (most > 0).then(|| format!("(?:{GROUP}:){{0,{}}}{GROUP}", most - 1));
        forms.push(match (before, right) {
            (0, Some(right)) => format!("::{right}"),
            (_, Some(right)) => format!("{left}::(?:{right})?"),
            (_, None) => format!("{left}::"),
        });
    }
    format!("(?:{})", forms.join("|"))
}

/// A URI of RFC 3986 whose host is a name or an IPv4 address.
fn uri(ipv4: &str) -> String {
    let scheme = r"[a-zA-Z][a-zA-Z0-9+\-.]*";
    let user = r"(?:(?:[a-zA-Z0-9\-._~!$&'()*+,;=:]|%[0-9a-fA-F]{2})*@)?";
    let name = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=]|%[0-9a-fA-F]{2})+";
    let authority = format!(r"//{user}(?:{ipv4}|{name})(?::[0-9]{{1,4}})?(?:/{PCHAR}*)*");
    let path = format!(r"(?:/(?:{PCHAR}+(?:/{PCHAR}*)*)?|{PCHAR}+(?:/{PCHAR}*)*)");
    let rest = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@/?]|%[0-9a-fA-F]{2})*";
    format!(r"{scheme}:(?:{authority}|{path})(?:\?{rest})?(?:#{rest})?")
}

#[cfg(test)]
mod tests {
    use super::super::pattern::{Pattern, all_of};
    use super::*;

    #[test]
    fn a_format_is_what_its_standard_says() {
        let check = |name: &str, inside: &[&str], outside: &[&str]| {
            let parts: Vec<_> = regexes(name)
                .unwrap()
                .iter()
                .map(|regex| Pattern::whole(regex))
                .collect();
            let set = all_of(parts.iter()).unwrap();
            for text in inside {
                assert_eq!(set.contains(text), Some(true), "{text} is a {name}");
            }
            for text in outside {
                assert_eq!(set.contains(text), Some(false), "{text} is no {name}");
            }
        };
        check(
            "date",
            &["2024-02-29", "2000-02-29", "2023-12-31"],
            &["2023-02-29", "1900-02-29", "2023-04-31", "0000-01-01"],
        );
        check(
            "time",
            &["23:59:59Z", "00:00:00.5+01:00"],
            &["24:00:00Z", "12:00:00"],
        );
        check(
            "date-time",
            &["2024-02-29T00:00:00Z"],
            &["2023-02-29T00:00:00Z", "2024-01-01"],
        );
        check(
            "duration",
            &["P1Y2M3DT4H5M6S", "PT1S", "P2W"],
            &["P", "PT", "1Y", "P1H"],
        );
        check(
            "email",
            &["a.b@example.com", "x@y"],
            &["a..b@c", "@c", "a@-b"],
        );
        check(
            "hostname",
            &["a", "a-b.example.com"],
            &["-a", "a-", "a..b", "xn--a", ""],
        );
        check(
            "ipv4",
            &["0.0.0.0", "255.255.255.255"],
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
            ],
            &[
                "1:2:3",
                ":::",
                "1::2::3",
                "1:2:3:4:5:6:7:8:9",
                "1:2:3:4:5:6:7:8::",
                "12345::",
            ],
        );
        check(
            "uuid",
            &["123e4567-e89b-12d3-a456-426614174000"],
            &["123e4567e89b12d3a456426614174000"],
        );
        check(
            "uri",
            &[
                "https://a.example/b?c=d#e",
                "mailto:a@b",
                "urn:x:y",
                "http://1.2.3.4:80",
            ],
            &["//a", "a b:c", "https://a b", "1:a"],
        );
        assert_eq!(regexes("credit-card"), None);
        for name in FORMATS {
            assert!(regexes(name).is_some(), "{name}");
        }
    }
}
