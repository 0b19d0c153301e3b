//! Random documents for the differential tests: the same seed gives the same documents.
//!
//! What they hold is picked from lists of what has broken readers of YAML, JSON and SOPS before, so that a few hundred
//! documents reach it all.

use std::fmt::Write;

use serde_json::{Value, json};

/// The generator of Steele, Lea and Flood ("`SplitMix64`"): small, and good enough to pick from lists.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }

    /// True once in `sides` times.
    pub fn once_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    /// Some of the keys, each once.
    fn keys(&mut self) -> Vec<&'static str> {
        let mut keys: Vec<_> = (0..=self.roll(5)).map(|_| self.pick(&KEYS)).collect();
        keys.sort_unstable();
        keys.dedup();
        let middle = self.roll(keys.len());
        keys.rotate_left(middle);
        keys
    }
}

#[rustfmt::skip]
const KEYS: [&str; 22] = [
    "a", "b", "key", "data", "x_unencrypted", "pass_secret", "with space", "é", "日本", "0x1", "yes", "on",
    "dash-ed", "dot.ted", "~t", "a:b", "# no", "'q'", "\"dq\"", "3", "true", "sops",
];

/// Text that needs care in some reader or writer. Lines that begin with a blank are not among it: sops breaks those.
#[rustfmt::skip]
const TEXTS: [&str; 61] = [
    "", "plain", "STRONGROOM-MARKER", "yes", "no", "on", "y", "123", "0755", "1e3", "true", "null", "~",
    "1:30", "multi\nline\n", "two\n\nlines", "trail ", " lead", "\ttab", "é日本😀", "a: b", "# hash", "x # y",
    "- dash", "{{ x }}", "'", "\"", "\\", "\\n", "\u{85}x", "\u{2028}", "\u{7f}", "\u{1}bell", "line1\nline2",
    "2020-01-02", "0x1F", "1_000", ".inf", ".5", "=", "<<", "*al", "&an", "!tag", "%d",
    "@at", "`bt", "|", "> f", "a\r\nb", "\u{feff}", "-", "?", ": ", "[x", "{", "ENC[x]", "1e400", "0o17", "-",
    "9223372036854775808",
];

/// Plain scalars that sops and helm read alike.
#[rustfmt::skip]
const PLAIN: [&str; 24] = [
    "0755", "1_000", "0x1F", "0b11", "1.50", "1e10", "1e-7", "123456789.0", "true", "False", "null", "~", "",
    "-0", "+5", "09", "12345678901234567890123", "9223372036854775807", "-9223372036854775808", "0.1",
    "100000.0", "1e21", "-1e-5", "word",
];

/// Plain scalars that mean one thing to helm and another to sops, which writes them back in its own way.
#[rustfmt::skip]
const OTHER: [&str; 11] = [
    "yes", "No", "on", "y", "2020-01-02", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.1", "1:30",
    "0o17", ".5", "2020-01-02T03:04:05Z",
];

/// Writes YAML.
#[derive(Debug)]
pub struct Yaml<'d> {
    /// Chance.
    pub dice: &'d mut Dice,
    /// Also what sops itself does not keep as helm reads it.
    pub other: bool,
    /// Comments in lists, too.
    pub list_comments: bool,
    /// Makes anchors of one file differ.
    pub anchors: usize,
}

impl Yaml<'_> {
    /// A block mapping below `name`.
    pub fn document(&mut self, name: &str) -> String {
        let mut text = format!("{name}:\n");
        self.mapping(&mut text, "  ", 3);
        if self.dice.once_in(3) {
            self.merged(&mut text);
        }
        text
    }

    fn mapping(&mut self, text: &mut String, indent: &str, depth: usize) {
        for key in self.dice.keys() {
            if self.dice.once_in(6) {
                let gap = self.dice.pick(&["", "", "\n"]);
                writeln!(text, "{indent}# head é\n{gap}").unwrap();
            }
            write!(text, "{indent}{}:", json!(key)).unwrap();
            self.value(text, indent, depth);
        }
        if self.dice.once_in(10) {
            writeln!(text, "{indent}# foot").unwrap();
        }
    }

    fn value(&mut self, text: &mut String, indent: &str, depth: usize) {
        match self.dice.roll(20) {
            0 => text.push_str(self.dice.pick(&[
                " {}\n",
                " []\n",
                " {a: 1, b: [x, 'y', null]}\n",
                " [1, two, {c: d}]\n",
            ])),
            1..=4 if depth > 0 => {
                text.push('\n');
                for _ in 0..=self.dice.roll(4) {
                    if self.list_comments && self.dice.once_in(5) {
                        writeln!(text, "{indent}  # item {}", self.dice.pick(&["é", "#", " x"])).unwrap();
                    }
                    write!(text, "{indent}  -").unwrap();
                    self.value(text, &format!("{indent}  "), depth - 1);
                }
            }
            5..=8 if depth > 0 => {
                text.push('\n');
                self.mapping(text, &format!("{indent}  "), depth - 1);
            }
            9 => self.block(text, indent),
            10..=13 => {
                let plain = if self.other && self.dice.once_in(2) {
                    self.dice.pick(&OTHER)
                } else {
                    self.dice.pick(&PLAIN)
                };
                let comment = if self.dice.once_in(8) { " # inline" } else { "" };
                writeln!(text, " {plain}{comment}").unwrap();
            }
            _ => {
                let value = self.dice.pick(&TEXTS);
                writeln!(text, " {}", self.quoted(value)).unwrap();
            }
        }
    }

    fn quoted(&mut self, text: &str) -> String {
        let simple = !text.contains(|c| c < ' ' || unprintable(c));
        if simple && self.dice.once_in(3) {
            return format!("'{}'", text.replace('\'', "''"));
        }
        // JSON leaves as they are what YAML does not take for printable.
        text.chars().fold(String::from("\""), |mut quoted, c| {
            match c {
                '"' | '\\' => write!(quoted, "\\{c}"),
                c if c < ' ' || unprintable(c) => write!(quoted, "\\u{:04x}", u32::from(c)),
                _ => write!(quoted, "{c}"),
            }
            .unwrap();
            quoted
        }) + "\""
    }

    fn block(&mut self, text: &mut String, indent: &str) {
        let header = self.dice.pick(&["|", "|-", "|+", ">", ">-"]);
        let lines = self.dice.pick(&[
            "one",
            "one\ntwo",
            "one\n\n  two # no comment\nthree: 3",
            "é\n- x",
            "#!/bin/sh\n",
        ]);
        writeln!(text, " {header}").unwrap();
        for line in lines.split('\n') {
            let indented = if line.is_empty() { String::new() } else { format!("{indent}  {line}") };
            writeln!(text, "{indented}").unwrap();
        }
    }

    /// An anchor, an alias and a merge key.
    fn merged(&mut self, text: &mut String) {
        let anchor = format!("anchor{}", self.anchors);
        self.anchors += 1;
        write!(text, "  base: &{anchor}\n    m: 1\n    k:").unwrap();
        self.value(text, "    ", 1);
        write!(text, "  merged:\n    <<: *{anchor}\n    m: own\n  again: *{anchor}\n").unwrap();
    }
}

/// What helm, which reads JSON as YAML, takes only as an escape, and sops writes as it is.
fn unprintable(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{feff}')
}

/// Any JSON but what sops rounds.
pub fn json(dice: &mut Dice, depth: usize) -> Value {
    match dice.roll(10) {
        0..=1 if depth > 0 => (0..dice.roll(5)).map(|_| json(dice, depth - 1)).collect(),
        2..=3 if depth > 0 => json_object(dice, depth - 1),
        4..=5 => json!(dice.pick(&TEXTS).trim_matches(unprintable)),
        6 => json!(dice.pick(&[1_i64, 0, -5, 1 << 53, -(1 << 53)])),
        7 => json!(dice.pick(&[1.5, 1e21, 1e-7, 100_000.5, -0.25])),
        8 => dice.pick(&[Some(true), Some(false), None]).map_or(Value::Null, Value::Bool),
        _ => json!(dice.pick(&["<&>", "\u{2029}", "STRONGROOM-MARKER"])),
    }
}

/// A JSON object.
pub fn json_object(dice: &mut Dice, depth: usize) -> Value {
    Value::Object(dice.keys().into_iter().map(|key| (key.to_owned(), json(dice, depth))).collect())
}

/// dotenv: text up to the end of the line, with `\n` for a line break.
pub fn dotenv(dice: &mut Dice) -> String {
    let mut text = String::new();
    for key in dice.keys() {
        if dice.once_in(4) {
            text.push_str(dice.pick(&["# head é\n", "#\n", "\n", "#no blank = here\n"]));
        }
        let value = dice.pick(&TEXTS).replace('\n', "\\n");
        writeln!(text, "{}={value}", key.trim_start_matches(['#', ' '])).unwrap();
    }
    text
}

/// INI: sections of keys, with values that go-ini can write back.
pub fn ini(dice: &mut Dice) -> String {
    let mut text = String::new();
    for section in ["", "data", "pass_secret", "é x"] {
        if !section.is_empty() && dice.once_in(3) {
            continue;
        }
        if !section.is_empty() {
            let head = dice.pick(&["", "; head é\n", "# two\n; lines\n"]);
            writeln!(text, "{head}[{section}]").unwrap();
        }
        for key in dice.keys().into_iter().filter(|key| !key.contains(['#', '"', ':'])) {
            let head = dice.pick(&["", "", "", "; head é\n", "# two\n# lines\n"]);
            let value = dice.pick(&INI_VALUES);
            writeln!(text, "{head}{key} = {value}").unwrap();
        }
    }
    text
}

/// Anything at all, text or not.
pub fn binary(dice: &mut Dice) -> Vec<u8> {
    match dice.roll(4) {
        0 => (0..dice.roll(3_000)).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect(),
        1 => json_object(dice, 2).to_string().into_bytes(),
        2 => dotenv(dice).into_bytes(),
        _ => dice.pick(&TEXTS).as_bytes().to_vec(),
    }
}

#[rustfmt::skip]
const INI_VALUES: [&str; 22] = [
    "", "plain", "STRONGROOM-MARKER", "two words", "é日本😀", "0755", "true", "a=b", "a:b", "\"quoted\"", "'single'",
    "`with # sign`", "with ; comment", "\"\"\"many\nlines\n\"\"\"", "\"half", "100%", "\\n", "[x]", "` blank `",
    "goes \\\non", "{{ x }}", "\"\"\"one\"\"\"",
];

/// Writes YAML of comments above all, where people put them and where they do not. `@` in a comment is for a rule to find.
#[derive(Debug)]
pub struct Commented<'d> {
    dice: &'d mut Dice,
    text: String,
    count: usize,
}

impl<'d> Commented<'d> {
    /// One or two documents, whose values are all different.
    pub fn documents(dice: &'d mut Dice) -> String {
        let mut yaml = Self { dice, text: String::new(), count: 0 };
        yaml.collection("", 0, false);
        if yaml.dice.once_in(4) {
            yaml.text.push_str("---\n");
            yaml.collection("", 0, false);
        }
        yaml.text
    }

    fn collection(&mut self, indent: &str, depth: usize, is_list: bool) {
        for _ in 0..=self.dice.roll(3) {
            self.gap(indent);
            self.count += 1;
            let name = if is_list { "-".to_owned() } else { format!("k{}:", self.count) };
            write!(self.text, "{indent}{name}").unwrap();
            self.value(indent, depth, is_list);
        }
        if self.dice.once_in(6) {
            self.gap(indent);
        }
    }

    fn value(&mut self, indent: &str, depth: usize, is_item: bool) {
        let deeper = format!("{indent}{}", self.dice.pick(&["  ", "  ", "    "]));
        self.count += 1;
        let number = self.count;
        match self.dice.roll(12) {
            0 => write!(self.text, " [v{number}, 'w{number}']").unwrap(),
            1 => write!(self.text, " {{f: v{number}, g: w{number}}}").unwrap(),
            2 => {
                write!(self.text, " {}", self.dice.pick(&["|", ">-"])).unwrap();
                self.inline();
                return writeln!(self.text, "{deeper}v{number}").unwrap();
            }
            3..=5 if depth < 4 => {
                self.inline();
                return self.collection(&deeper, depth + 1, false);
            }
            6..=7 if depth < 4 => {
                self.inline();
                let inside = if is_item || self.dice.once_in(2) { deeper } else { indent.to_owned() };
                return self.collection(&inside, depth + 1, true);
            }
            _ => {
                let quote = self.dice.pick(&["", "\"", "'"]);
                write!(self.text, " {quote}v{number}{quote}").unwrap();
            }
        }
        self.inline();
    }

    /// The end of a line, often behind a comment.
    fn inline(&mut self) {
        if self.dice.once_in(4) {
            let comment = self.comment();
            write!(self.text, " {comment}").unwrap();
        }
        self.text.push('\n');
    }

    fn gap(&mut self, indent: &str) {
        if self.dice.once_in(2) {
            return;
        }
        for _ in 0..=self.dice.roll(3) {
            if self.dice.once_in(4) {
                self.text.push('\n');
            }
            let column = if self.dice.once_in(8) { self.dice.pick(&["", "  ", "    "]) } else { indent };
            let comment = self.comment();
            writeln!(self.text, "{column}{comment}").unwrap();
        }
        if self.dice.once_in(3) {
            self.text.push('\n');
        }
    }

    fn comment(&mut self) -> String {
        self.count += 1;
        format!("#{}{}", self.dice.pick(&[" @", " note", "@", "note"]), self.count)
    }
}
