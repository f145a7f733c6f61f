//! The signature of a message, as <https://www.standardwebhooks.com> has it: version 1, HMAC-SHA256. Pure.

use data_encoding::BASE64;
use ring::hmac;

use crate::config::Secret;
use crate::domain::settings::notify::KEY_PREFIX;

/// The value of `webhook-signature` for a message with this id and body that is sent at `timestamp`, in Unix seconds.
/// None where the key is no key.
pub(super) fn sign(key: &Secret, id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
    let key = BASE64.decode(key.0.strip_prefix(KEY_PREFIX)?.as_bytes()).ok()?;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    Some(format!("v1,{}", BASE64.encode(context.sign().as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_convention() {
        // The example of the convention's own libraries.
        let key = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signed = |body: &[u8]| sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signed(br#"{"test": 2432232314}"#).as_deref(), Some(expected));
        assert_ne!(signed(br#"{"test": 2432232315}"#).as_deref(), Some(expected));
        for no_key in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_?"] {
            assert_eq!(sign(&Secret(no_key.to_owned()), "a", 1, b""), None);
        }
    }
}
