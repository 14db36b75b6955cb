//! A token as an encrypted text: XChaCha20-Poly1305 with a key of the backend.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{domain::MerchantId, reconcile::ports::Tokens};

/// Length of a key, in bytes.
pub(super) const KEY_BYTES: usize = 32;

const NONCE_BYTES: usize = 24;

/// Which of a merchant's tokens a sealed text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Access,
    Refresh,
}

/// The same tokens in another form, if both can be had in it.
pub(super) fn each<T, U, E>(tokens: &Tokens<T>, mut of: impl FnMut(Kind, &T) -> Result<U, E>) -> Result<Tokens<U>, E> {
    let access = of(Kind::Access, &tokens.access)?;
    let refresh = tokens.refresh.as_ref().map(|token| of(Kind::Refresh, token)).transpose()?;
    Ok(tokens.with_texts(access, refresh))
}

/// Why a text is not decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextError {
    /// It is not what [`encrypt`] makes.
    Shape,
    /// It was encrypted under another key or for another place, or was changed.
    DoesNotOpen,
}

/// `NONCE.CIPHERTEXT`, both in unpadded base64url.
pub(super) fn encrypt(cipher: &XChaCha20Poly1305, merchant: MerchantId, kind: Kind, token: &SecretString) -> String {
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let payload = Payload { msg: token.expose_secret().as_bytes(), aad: &associated(merchant, kind) };
    let ciphertext = cipher
        .encrypt(&XNonce::from(nonce), payload)
        .unwrap_or_else(|_| unreachable!("a token is far below the cipher's limit of 256 GiB"));
    format!("{}.{}", URL_SAFE_NO_PAD.encode(nonce), URL_SAFE_NO_PAD.encode(ciphertext))
}

/// The token behind the two parts of an encrypted text.
pub(super) fn decrypt(
    cipher: &XChaCha20Poly1305,
    merchant: MerchantId,
    kind: Kind,
    nonce: &str,
    ciphertext: &str,
) -> Result<SecretString, TextError> {
    let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| TextError::Shape);
    let nonce: [u8; NONCE_BYTES] = decode(nonce)?.try_into().map_err(|_| TextError::Shape)?;
    let payload = Payload { msg: &decode(ciphertext)?, aad: &associated(merchant, kind) };
    let plain = cipher.decrypt(&XNonce::from(nonce), payload).map(Zeroizing::new);
    let plain = plain.map_err(|_| TextError::DoesNotOpen)?;
    std::str::from_utf8(&plain).map(SecretString::from).map_err(|_| TextError::Shape)
}

/// The context to which an encrypted token is bound.
fn associated(merchant: MerchantId, kind: Kind) -> Vec<u8> {
    let kind = match kind {
        Kind::Access => "access_token",
        Kind::Refresh => "refresh_token",
    };
    format!("salla-reconciler/credentials/{kind}/{merchant}").into_bytes()
}
