//! PromQL that ward writes: selectors are made here and nowhere else, by id, with every value quoted.

use shared::DeviceId;

/// A selector of one device's metric.
pub fn selector(metric: &str, device: &DeviceId) -> String {
    format!("{metric}{{device_id={}}}", quote(device.as_str()))
}

/// A selector of all that has one of these values of a label, each taken literally.
pub fn any_of<'a>(label: &str, values: impl Iterator<Item = &'a str>) -> String {
    let escape = |value: &str| {
        value.chars().fold(String::new(), |mut out, c| {
            if !(c.is_alphanumeric() || c == '_') {
                out.push('\\');
            }
            out.push(c);
            out
        })
    };
    let pattern = values.map(escape).collect::<Vec<_>>().join("|");
    // An empty one would let through what has no such label; nothing is neither blank nor not blank.
    let pattern = if pattern.is_empty() { r"[^\s\S]" } else { &pattern };
    format!("{{{label}=~{}}}", quote(pattern))
}

/// A string literal, in which nothing ends the string or means something else.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other if other.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(other))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A duration such as `5m` or `1h30m`, or a number of seconds, in ms.
pub fn duration_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1_000.0;
        // Larger ones can't be told apart from each other.
        return (1.0..1e15).contains(&ms).then_some(ms as i64);
    }
    let mut rest = text;
    let mut sum = 0i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
        let (unit, ms) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = rest.get(unit.len()..)?;
        sum = sum.checked_add(number.checked_mul(ms)?)?;
    }
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_selector_is_quoted() {
        let device = "vake.atm-1".parse().expect("a valid id");
        assert_eq!(selector("m", &device), "m{device_id=\"vake.atm-1\"}");
        assert_eq!(any_of("region", ["a.b", "c-d", "e_f"].into_iter()), r#"{region=~"a\\.b|c\\-d|e_f"}"#);
        assert_eq!(any_of("region", std::iter::empty()), r#"{region=~"[^\\s\\S]"}"#);
        assert_eq!(quote("a\"b\\.c\nd\u{0}\u{7f}ქ"), "\"a\\\"b\\\\.c\\nd\\x00\\x7fქ\"");
        assert_eq!(quote("\"} or vector(1) #"), "\"\\\"} or vector(1) #\"");
    }

    #[test]
    fn durations_are_those_of_prometheus() {
        for (text, ms) in
            [("5m", 300_000), ("1h30m", 5_400_000), ("15", 15_000), ("0.5", 500), ("250ms", 250), ("1d", 86_400_000)]
        {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for bad in ["", "0", "-5", "m", "5x", "NaN", "inf", "1e300", "5m ", "99999999999999999999s", "0.0000001", "5"] {
            assert_eq!(duration_ms(bad).is_some(), bad == "5", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_text_ends_where_it_ends(text in any::<String>()) {
            let quoted = quote(&text);
            let inner = &quoted[1..quoted.len() - 1];
            let mut escaped = false;
            for c in inner.chars() {
                prop_assert!(!c.is_ascii_control());
                prop_assert!(escaped || c != '"');
                escaped = c == '\\' && !escaped;
            }
            prop_assert!(!escaped);
        }
    }
}
