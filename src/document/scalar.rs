//! What go-yaml v3 makes of a scalar: the types that sops hashes and that vals hands on.
//!
//! Follows `resolve.go` of go.yaml.in/yaml/v3: YAML 1.1 octals and underscores and YAML 1.2 booleans. Times are
//! checked as Go's `time.Parse` checks them and kept as Go's `MarshalText` writes them.

use super::{Kind, Node, Style};

/// A typed scalar.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Absent, `~`, `null`.
    Null,
    /// `true` or `false` in three spellings each.
    Bool(bool),
    /// Fits in 64 bits with a sign.
    Int(i64),
    /// Fits in 64 bits only without a sign. sops refuses it.
    Uint(u64),
    /// Has a point or an exponent, or does not fit in 64 bits.
    Float(f64),
    /// A time, as RFC 3339 with the digits it needs.
    Time(String),
    /// Text.
    Str,
    /// Text in base64 behind `!!binary`.
    Binary,
    /// The tag and the text exclude each other, as in `!!int x`.
    Mismatch,
}

const CORE: &str = "tag:yaml.org,2002:";

/// The type of a scalar node; `None` of a collection or an alias.
pub fn of(node: &Node) -> Option<Scalar> {
    match &node.kind {
        Kind::Scalar { value, style } => {
            Some(resolve(value.expose(), *style, node.tag().map(|tag| tag.name.as_str())))
        }
        _ => None,
    }
}

/// The type of `text`, written in `style`, behind the resolved `tag`. Local tags mean text.
pub fn resolve(text: &str, style: Style, tag: Option<&str>) -> Scalar {
    let Some(tag) = tag else {
        return if style == Style::Plain { plain(text) } else { Scalar::Str };
    };
    let quoted = style != Style::Plain;
    match (tag.strip_prefix(CORE), plain(text)) {
        (Some("binary"), _) => Scalar::Binary,
        (Some("null"), Scalar::Null) => Scalar::Null,
        (Some("bool"), Scalar::Bool(value)) => Scalar::Bool(value),
        (Some("int"), Scalar::Int(value)) => Scalar::Int(value),
        (Some("int"), Scalar::Uint(value)) => Scalar::Uint(value),
        (Some("float"), Scalar::Float(value)) => Scalar::Float(value),
        #[expect(clippy::cast_precision_loss, reason = "Go converts the same way")]
        (Some("float"), Scalar::Int(value)) => Scalar::Float(value as f64),
        (Some("timestamp"), Scalar::Time(value)) => Scalar::Time(value),
        (Some("merge"), _) if text == "<<" && !quoted => Scalar::Str,
        (Some("null" | "bool" | "int" | "float" | "timestamp" | "merge"), _) => Scalar::Mismatch,
        _ => Scalar::Str,
    }
}

/// The type of an untagged plain scalar.
pub fn plain(text: &str) -> Scalar {
    match text.as_bytes().first() {
        None => Scalar::Null,
        Some(b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~') => word(text),
        Some(b'.') => point(text),
        Some(b'+' | b'-' | b'0'..=b'9') => digits(text),
        Some(_) => Scalar::Str,
    }
}

fn word(text: &str) -> Scalar {
    match text {
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" => Scalar::Bool(true),
        "false" | "False" | "FALSE" => Scalar::Bool(false),
        _ => Scalar::Str,
    }
}

fn point(text: &str) -> Scalar {
    match text {
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" => Scalar::Float(f64::INFINITY),
        _ => float(text).map_or(Scalar::Str, Scalar::Float),
    }
}

fn digits(text: &str) -> Scalar {
    match text {
        "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if let Some(time) = time(text) {
        return Scalar::Time(time);
    }
    let digits = text.replace('_', "");
    integer(&digits)
        .or_else(|| float(&digits).map(Scalar::Float))
        .or_else(|| prefixed(&digits))
        .unwrap_or(Scalar::Str)
}

/// Go's `ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, radix) = radix(unsigned);
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    let signed = if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
    signed.map(Scalar::Int).or_else(|| (unsigned == text).then_some(Scalar::Uint(magnitude)))
}

fn radix(text: &str) -> (&str, u32) {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.get(1)) {
        (Some(b'0'), Some(b'x' | b'X')) if bytes.len() > 2 => (&text[2..], 16),
        (Some(b'0'), Some(b'o' | b'O')) if bytes.len() > 2 => (&text[2..], 8),
        (Some(b'0'), Some(b'b' | b'B')) if bytes.len() > 2 => (&text[2..], 2),
        (Some(b'0'), Some(_)) => (&text[1..], 8),
        _ => (text, 10),
    }
}

/// What go-yaml tries last: a second sign behind `0b` or `0o`.
fn prefixed(text: &str) -> Option<Scalar> {
    let (digits, radix) = match text.get(..2)? {
        "0b" => (&text[2..], 2),
        "0o" => (&text[2..], 8),
        _ => return None,
    };
    i64::from_str_radix(digits, radix).ok().map(Scalar::Int)
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`, and finite.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let some = !whole.is_empty() || !fraction.is_empty();
    let valid = some && all_digits(whole) && all_digits(fraction);
    if !valid || exponent.is_some_and(|exponent| exponent.is_empty() || !all_digits(exponent)) {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A time in one of go-yaml's four layouts, as RFC 3339.
fn time(text: &str) -> Option<String> {
    let mut rest = Rest(text);
    let year = rest.number(4, 4)?;
    rest.expect("-")?;
    let month = rest.number(1, 2)?;
    rest.expect("-")?;
    let day = rest.number(1, 2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    if rest.0.is_empty() {
        return Some(format!("{date}T00:00:00Z"));
    }
    let zoned = rest.expect("T").or_else(|| rest.expect("t")).is_some();
    if !zoned {
        rest.expect(" ")?;
    }
    let clock = clock(&mut rest)?;
    let zone = if zoned { zone(&mut rest)? } else { "Z".to_owned() };
    rest.0.is_empty().then(|| format!("{date}T{clock}{zone}"))
}

fn clock(rest: &mut Rest<'_>) -> Option<String> {
    let hour = rest.number(1, 2).filter(|hour| *hour < 24)?;
    rest.expect(":")?;
    let minute = rest.number(1, 2).filter(|minute| *minute < 60)?;
    rest.expect(":")?;
    let second = rest.number(1, 2).filter(|second| *second < 60)?;
    let mut clock = format!("{hour:02}:{minute:02}:{second:02}");
    let digits = rest.0.get(1..).unwrap_or("").bytes().take_while(u8::is_ascii_digit).count();
    if rest.0.starts_with(['.', ',']) && digits > 0 {
        let fraction = rest.0[1..=digits.min(9)].trim_end_matches('0');
        if !fraction.is_empty() {
            clock = format!("{clock}.{fraction}");
        }
        rest.0 = &rest.0[1 + digits..];
    }
    Some(clock)
}

fn zone(rest: &mut Rest<'_>) -> Option<String> {
    if rest.expect("Z").is_some() {
        return Some("Z".to_owned());
    }
    let sign = if rest.expect("-").is_some() { '-' } else { rest.expect("+").map(|()| '+')? };
    let hours = rest.number(2, 2).filter(|hours| *hours <= 24)?;
    rest.expect(":")?;
    let minutes = rest.number(2, 2).filter(|minutes| *minutes <= 60)?;
    let total = hours * 60 + minutes;
    Some(if total == 0 { "Z".to_owned() } else { format!("{sign}{:02}:{:02}", total / 60, total % 60) })
}

const fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn expect(&mut self, prefix: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(prefix)?;
        Some(())
    }

    /// As many digits as there are, at least `least` and at most `most`.
    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let digits = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let number = self.0[..digits].parse().ok().filter(|_| digits >= least)?;
        self.0 = &self.0[digits..];
        Some(number)
    }
}

/// Go's `strconv.FormatFloat(value, 'f', -1, 64)`: shortest digits, never an exponent. What sops hashes.
pub fn fixed(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

/// Go's `strconv.FormatFloat(value, 'g', -1, 64)` with the exponent from `limit` digits on: 21 for `%v`, 6 for
/// what go-yaml writes, in YAML's words for what is not a number.
pub fn general(value: f64, limit: i32) -> String {
    if value.is_nan() {
        return ".nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a number behind the e");
    if value == 0.0 || (-4..limit).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_of(text: &str) -> Scalar {
        Scalar::Time(text.to_owned())
    }

    #[test]
    fn plain_scalars_are_typed_as_go_yaml_does() {
        let table = [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("null", Scalar::Null),
            ("NULL", Scalar::Null),
            ("nUll", Scalar::Str),
            ("true", Scalar::Bool(true)),
            ("False", Scalar::Bool(false)),
            ("tRue", Scalar::Str),
            ("yes", Scalar::Str),
            ("on", Scalar::Str),
            ("y", Scalar::Str),
            ("N", Scalar::Str),
            ("=", Scalar::Str),
            ("<<", Scalar::Str),
            ("0", Scalar::Int(0)),
            ("-0", Scalar::Int(0)),
            ("+12", Scalar::Int(12)),
            ("0755", Scalar::Int(493)),
            ("-0755", Scalar::Int(-493)),
            ("0o17", Scalar::Int(15)),
            ("0O17", Scalar::Int(15)),
            ("0xff", Scalar::Int(255)),
            ("0XFF", Scalar::Int(255)),
            ("0b11", Scalar::Int(3)),
            ("-0b11", Scalar::Int(-3)),
            ("0b-11", Scalar::Int(-3)),
            ("0x", Scalar::Str),
            ("0x+1", Scalar::Str),
            ("1_000", Scalar::Int(1000)),
            ("12345_54321", Scalar::Int(1_234_554_321)),
            ("0_7", Scalar::Int(7)),
            ("_1", Scalar::Str),
            ("08", Scalar::Float(8.0)),
            ("09", Scalar::Float(9.0)),
            ("9223372036854775807", Scalar::Int(i64::MAX)),
            ("-9223372036854775808", Scalar::Int(i64::MIN)),
            ("9223372036854775808", Scalar::Uint(1 << 63)),
            ("+9223372036854775808", Scalar::Float(9_223_372_036_854_775_808.0)),
            ("0xFFFFFFFFFFFFFFFF", Scalar::Uint(u64::MAX)),
            ("18446744073709551616", Scalar::Float(18_446_744_073_709_551_616.0)),
            ("1.5", Scalar::Float(1.5)),
            ("1.", Scalar::Float(1.0)),
            (".5", Scalar::Float(0.5)),
            ("-.5", Scalar::Float(-0.5)),
            (".", Scalar::Str),
            ("+", Scalar::Str),
            ("-", Scalar::Str),
            ("1e3", Scalar::Float(1000.0)),
            ("1e+10", Scalar::Float(1e10)),
            ("1E-2", Scalar::Float(0.01)),
            ("1e", Scalar::Str),
            ("1e400", Scalar::Str),
            ("1.2.3", Scalar::Str),
            ("1:30", Scalar::Str),
            (".inf", Scalar::Float(f64::INFINITY)),
            ("-.Inf", Scalar::Float(f64::NEG_INFINITY)),
            ("-inf", Scalar::Str),
            ("+infinity", Scalar::Str),
            ("2020-01-02", time_of("2020-01-02T00:00:00Z")),
            ("2020-1-2", time_of("2020-01-02T00:00:00Z")),
            ("2020-02-30", Scalar::Str),
            ("2020-13-01", Scalar::Str),
            ("2001-12-14t21:59:43.10-05:00", time_of("2001-12-14T21:59:43.1-05:00")),
            ("2001-12-14T21:59:43.000Z", time_of("2001-12-14T21:59:43Z")),
            ("2001-12-14T1:2:3+00:00", time_of("2001-12-14T01:02:03Z")),
            ("2001-12-14 21:59:43.1234567891", time_of("2001-12-14T21:59:43.123456789Z")),
            ("2001-12-14 21:59:43.10 -5", Scalar::Str),
            ("2002-04-28T00:00:00", Scalar::Str),
            ("2001-12-14 21:59:43Z", Scalar::Str),
            ("ENC[x]", Scalar::Str),
        ];
        for (text, expected) in table {
            assert_eq!(plain(text), expected, "{text:?}");
        }
        assert!(matches!(plain(".NaN"), Scalar::Float(value) if value.is_nan()));
    }

    #[test]
    fn tags_and_quotes_decide_before_the_text() {
        let table = [
            ("5", Style::DoubleQuoted, None, Scalar::Str),
            ("5", Style::Literal, None, Scalar::Str),
            ("5", Style::Plain, Some("tag:yaml.org,2002:str"), Scalar::Str),
            ("5", Style::DoubleQuoted, Some("tag:yaml.org,2002:int"), Scalar::Int(5)),
            ("5", Style::Plain, Some("tag:yaml.org,2002:float"), Scalar::Float(5.0)),
            ("x", Style::Plain, Some("tag:yaml.org,2002:int"), Scalar::Mismatch),
            ("yes", Style::Plain, Some("tag:yaml.org,2002:bool"), Scalar::Mismatch),
            ("<<", Style::Plain, Some("tag:yaml.org,2002:merge"), Scalar::Str),
            ("YQ==", Style::Plain, Some("tag:yaml.org,2002:binary"), Scalar::Binary),
            ("5", Style::Plain, Some("!mine"), Scalar::Str),
        ];
        for (text, style, tag, expected) in table {
            assert_eq!(resolve(text, style, tag), expected, "{text:?} {tag:?}");
        }
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        let table = [
            (1.0, "1", "1", "1"),
            (-0.0, "-0", "-0", "-0"),
            (1e10, "10000000000", "1e+10", "10000000000"),
            (1e21, "1000000000000000000000", "1e+21", "1e+21"),
            (123_456_789.0, "123456789", "1.23456789e+08", "123456789"),
            (100_000.0, "100000", "100000", "100000"),
            (1.5e-7, "0.00000015", "1.5e-07", "1.5e-07"),
            (0.0001, "0.0001", "0.0001", "0.0001"),
            (f64::INFINITY, "+Inf", ".inf", ".inf"),
        ];
        for (value, fixed_text, yaml, verb) in table {
            assert_eq!(fixed(value), fixed_text);
            assert_eq!(general(value, 6), yaml);
            assert_eq!(general(value, 21), verb);
        }
    }
}
