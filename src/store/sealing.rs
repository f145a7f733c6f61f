//! Seals functions' secrets, so that neither the database nor a dump of the database shows one.
//!
//! AES-256-GCM with a random nonce for each value. A value opens only in its own place: the function's id and the
//! variable's name are authenticated with the value.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use sqlx::Row;

use super::{Store, StoreError, notify};
use crate::config::SecretKey;

/// The keys of SECRETS_KEY_FILE. The first key seals, and all keys open.
#[derive(Debug)]
pub(super) struct Sealer {
    keys: Vec<(String, LessSafeKey)>,
}

impl Sealer {
    pub(super) fn new(keys: &[SecretKey]) -> Option<Self> {
        let keys: Vec<_> = keys.iter().map(|SecretKey(key)| (id_of(key), cipher(key))).collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    /// The sealed form of a value: the id of the key, a colon, and nonce and ciphertext in hexadecimal digits.
    fn seal(&self, place: &str, value: &str) -> String {
        let (id, key) = &self.keys[0];
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the kernel has random numbers");
        let mut sealed = value.as_bytes().to_vec();
        let in_place = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed);
        in_place.expect("a secret is shorter than AES-GCM's limit of 64 GB");
        format!("{id}:{}{}", hex::encode(nonce), hex::encode(sealed))
    }

    /// None when no key opens the value in this place.
    fn open(&self, place: &str, sealed: &str) -> Option<String> {
        let (id, sealed) = sealed.split_once(':')?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == id)?;
        let mut bytes = hex::decode(sealed).ok()?;
        let (nonce, value) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let value = key.open_in_place(nonce, Aad::from(place), value).ok()?;
        String::from_utf8(value.to_vec()).ok()
    }

    fn seals_like(&self, sealed: &str) -> bool {
        sealed.split_once(':').is_some_and(|(id, _)| id == self.keys[0].0)
    }
}

impl Store {
    /// A secret as the row of a variable has it, and whether that is sealed.
    pub(super) fn sealed(&self, function: &str, name: &str, value: &str) -> (String, bool) {
        match &self.sealer {
            Some(sealer) => (sealer.seal(&place(function, name), value), true),
            None => (value.to_owned(), false),
        }
    }

    /// The secret that the row of a variable has.
    pub(super) fn opened(&self, function: &str, name: &str, value: String, sealed: bool) -> Result<String, StoreError> {
        if !sealed {
            return Ok(value);
        }
        let opened = self.sealer.as_ref().and_then(|sealer| sealer.open(&place(function, name), &value));
        opened.ok_or_else(|| StoreError::Sealed { function: function.to_owned(), name: name.to_owned() })
    }

    /// Seals all secrets by the first key that are not, as after a change of the keys. Returns their number.
    pub(super) async fn seal_all(&self) -> Result<u64, StoreError> {
        let Some(sealer) = &self.sealer else { return Ok(0) };
        let rows = sqlx::query(
            "SELECT function_id, name, value, sealed FROM variables WHERE is_secret = 1 \
             UNION ALL SELECT id, CAST($1 AS TEXT), notify_key, notify_sealed FROM functions \
             WHERE notify_key IS NOT NULL",
        );
        let rows = self.ask(rows.bind(notify::KEY).fetch_all(&self.pool())).await?;
        let mut count = 0;
        for row in rows {
            let text = |column: &str| row.try_get::<String, _>(column).map_err(|error| self.failed(error));
            let (function, name, value) = (text("function_id")?, text("name")?, text("value")?);
            let is_sealed = row.try_get::<i64, _>("sealed").map_err(|error| self.failed(error))? != 0;
            if is_sealed && sealer.seals_like(&value) {
                continue;
            }
            let secret = self.opened(&function, &name, value.clone(), is_sealed)?;
            // A value that another node has changed meanwhile is sealed already.
            let sealed = sealer.seal(&place(&function, &name), &secret);
            let update = if name == notify::KEY {
                sqlx::query("UPDATE functions SET notify_key = $1, notify_sealed = 1 WHERE notify_key = $2 AND id = $3")
                    .bind(sealed)
                    .bind(value)
                    .bind(function)
            } else {
                let update =
                    "UPDATE variables SET value = $1, sealed = 1 WHERE value = $2 AND function_id = $3 AND name = $4";
                sqlx::query(update).bind(sealed).bind(value).bind(function).bind(name)
            };
            let updated = self.ask(update.execute(&self.pool())).await?;
            count += updated.rows_affected();
        }
        Ok(count)
    }
}

/// The place of a value, which no other value has: an id has no space.
fn place(function: &str, name: &str) -> String {
    format!("{function} {name}")
}

/// Tells keys apart, and does not reveal a key.
fn id_of(key: &[u8; 32]) -> String {
    hex::encode(&Sha256::digest(key)[..4])
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_in_its_place_by_any_of_the_keys() {
        let sealer = |keys: &[u8]| {
            let keys: Vec<_> = keys.iter().map(|&byte| SecretKey([byte; 32])).collect();
            Sealer::new(&keys).expect("there are keys")
        };
        let old = sealer(&[1]);
        let sealed = old.seal("f NAME", "value");
        assert!(!sealed.contains("value") && sealed != old.seal("f NAME", "value"), "each value has its own nonce");
        assert_eq!(old.open("f NAME", &sealed).as_deref(), Some("value"));
        assert_eq!(old.open("f OTHER", &sealed), None);
        let both = sealer(&[2, 1]);
        assert_eq!(both.open("f NAME", &sealed).as_deref(), Some("value"));
        assert!(!both.seals_like(&sealed) && both.seals_like(&both.seal("f NAME", "value")));
        assert_eq!(sealer(&[2]).open("f NAME", &sealed), None);
        for damaged in ["", "x", &sealed[..20], &sealed.replace(':', ""), &format!("{sealed}00")] {
            assert_eq!(old.open("f NAME", damaged), None, "{damaged}");
        }
        assert!(Sealer::new(&[]).is_none());
    }
}
