//! Values of a field become what is asked of it: their types are checked here.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::RegexBuilder;

use super::super::fields;
use super::super::modifiers::{base64_offsets, windash};
use super::super::problem::quoted;
use super::super::text::{MAX_PATTERN, Pattern, Place, TextSet};
use super::super::tree::Test;
use super::super::value::Type;
use super::super::vars::Item;
use super::compiler::{Compiler, FieldAndModifiers};

/// Most bytes of one compiled regular expression, and of its cache.
const REGEX_BYTES: usize = 256 << 10;
/// Deepest nesting of one.
const REGEX_DEPTH: u32 = 50;
/// Regular expressions of all rules together.
pub const MAX_REGEXES: usize = 1_000;

impl Compiler<'_, '_, '_> {
    /// What asks for one of these values.
    pub(super) fn test(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let FieldAndModifiers {
            field, modifiers, ..
        } = key;
        if modifiers.fieldref {
            return self.fieldref(key, items);
        }
        match field.ty {
            Type::Text | Type::Texts | Type::Word(_) => {
                if modifiers.cidr {
                    return key.mismatch(self, "cidr");
                }
                if modifiers.compare.is_some() {
                    return key.mismatch(self, "gt, gte, lt and lte");
                }
                if modifiers.re.is_some() {
                    return self.regexes(key, items);
                }
                self.texts(key, items)
            }
            _ if modifiers.of_text().is_some() => {
                key.mismatch(self, modifiers.of_text().unwrap_or_default())
            }
            Type::Number => {
                if modifiers.cidr {
                    return key.mismatch(self, "cidr");
                }
                let numbers = self.each(items, |text| {
                    text.parse::<i64>()
                        .map_err(|_| format!("`{}` takes whole numbers", field.path))
                })?;
                match (modifiers.compare, numbers.as_slice()) {
                    (None, _) => Some(Test::Numbers(numbers)),
                    (Some(compare), [with]) => Some(Test::Compare(compare, *with)),
                    (Some(_), _) => self.fail(&key.span, "a comparison takes one number", None),
                }
            }
            _ if modifiers.compare.is_some() => key.mismatch(self, "gt, gte, lt and lte"),
            Type::Bool => {
                if modifiers.cidr {
                    return key.mismatch(self, "cidr");
                }
                let wanted = self.each(items, |text| match text {
                    "true" => Ok(true),
                    "false" => Ok(false),
                    _ => Err(format!("`{}` is `true` or `false`", field.path)),
                })?;
                Some(Test::Bool(*wanted.first()?))
            }
            Type::Ip => {
                let nets = self.each(items, |text| {
                    let ip = text.parse::<IpAddr>().map(IpNet::from);
                    match (ip, modifiers.cidr) {
                        (Ok(net), _) => Ok(net),
                        (Err(_), true) => text
                            .parse::<IpNet>()
                            .map(|net| net.trunc())
                            .map_err(|_| "this is no network such as 192.0.2.0/24".to_owned()),
                        (Err(_), false) if text.contains(['/', '*']) => {
                            Err("a network needs the modifier `cidr`".to_owned())
                        }
                        (Err(_), false) => Err("this is no IP address".to_owned()),
                    }
                })?;
                Some(Test::Nets(nets))
            }
        }
    }

    /// Reads every value; all that cannot be read are told of.
    fn each<T>(
        &mut self,
        items: &[Item],
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let mut values = Some(Vec::new());
        for item in items {
            match read(&item.text) {
                Ok(value) => {
                    if let Some(values) = &mut values {
                        values.push(value);
                    }
                }
                Err(message) => {
                    let message = format!("{message}: {}", quoted(&item.text));
                    self.report
                        .problems
                        .add(&item.source, &item.span, message, None);
                    values = None;
                }
            }
        }
        values
    }

    fn texts(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let modifiers = &key.modifiers;
        let place = modifiers.place.unwrap_or_default();
        let lists = self.each(items, |text| {
            if text.len() > MAX_PATTERN {
                return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
            }
            if modifiers.base64offset {
                if text.is_empty() {
                    return Err("`base64offset` needs a text".to_owned());
                }
                let coded = base64_offsets(text);
                let plain = coded
                    .iter()
                    .map(|text| Pattern::plain(text, Place::Contains));
                return Ok(plain.collect());
            }
            let variants = match modifiers.windash {
                true => windash(text)?,
                false => vec![text.to_owned()],
            };
            let patterns: Vec<Pattern> = variants
                .iter()
                .flat_map(|text| match place {
                    Place::Below => vec![
                        Pattern::parse(text, Place::Whole),
                        Pattern::parse(&format!("{text}/"), Place::Start),
                    ],
                    _ => vec![Pattern::parse(text, place)],
                })
                .collect();
            key.check_word(text, &patterns, modifiers.cased)?;
            Ok(patterns)
        })?;
        let patterns = lists.into_iter().flatten().collect();
        // Base64 of other letters is another text.
        let cased = modifiers.cased || modifiers.base64offset;
        match TextSet::new(patterns, cased) {
            Ok(set) => Some(Test::Text(set)),
            Err(message) => self.fail(&key.span, message, None),
        }
    }

    fn regexes(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let flags = key.modifiers.re.as_deref().unwrap_or_default();
        let used = self.context.regexes.get() + items.len();
        self.context.regexes.set(used);
        if used > MAX_REGEXES {
            let message = format!("more than {MAX_REGEXES} regular expressions");
            let help = "use `contains` and wildcards, which are faster too".to_owned();
            return self.fail(&key.span, message, Some(help));
        }
        let regexes = self.each(items, |text| {
            if text.len() > MAX_PATTERN {
                return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
            }
            let regex = RegexBuilder::new(text)
                .case_insensitive(flags.contains('i'))
                .multi_line(flags.contains('m'))
                .dot_matches_new_line(flags.contains('s'))
                .size_limit(REGEX_BYTES)
                .dfa_size_limit(REGEX_BYTES)
                .nest_limit(REGEX_DEPTH)
                .build()
                .map_err(|error| regex_problem(&error))?;
            key.check_regex(&regex)?;
            Ok(regex)
        })?;
        Some(Test::Regex(regexes))
    }

    fn fieldref(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let [item] = items else {
            return self.fail(&key.span, "`fieldref` takes the name of one field", None);
        };
        let other = match fields::find(self.kind, &item.text) {
            Ok(other) => other,
            Err((message, help)) => return self.fail(&item.span, message, help),
        };
        let class = |ty: Type| match ty {
            Type::Text | Type::Texts | Type::Word(_) => 0,
            Type::Number => 1,
            Type::Bool => 2,
            Type::Ip => 3,
        };
        if class(other.ty) != class(key.field.ty) {
            let message = format!(
                "`{}` is {}, `{}` is {}: they are never the same",
                key.field.path,
                key.field.ty.described(),
                other.path,
                other.ty.described()
            );
            return self.fail(&item.span, message, None);
        }
        let modifiers = &key.modifiers;
        let unfit = modifiers.re.is_some()
            || modifiers.cidr
            || modifiers.compare.is_some()
            || modifiers.base64offset
            || modifiers.windash
            || (modifiers.place.is_some() && class(key.field.ty) != 0);
        if unfit {
            let message =
                "`fieldref` goes with `contains`, `startswith`, `endswith`, `below` of texts alone";
            return self.fail(&key.span, message, None);
        }
        let place = modifiers.place.unwrap_or_default();
        Some(Test::Same(other, place, modifiers.cased))
    }
}

fn regex_problem(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("a regular expression that needs more than {limit} bytes")
        }
        regex::Error::Syntax(text) => {
            // The message shows the pattern first, over several lines.
            let last = text.lines().last().unwrap_or_default();
            let what = last.trim_start_matches("error: ");
            format!("a regular expression that cannot be used ({what})")
        }
        other => other.to_string(),
    }
}
