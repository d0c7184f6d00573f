//! placeholder

pub struct FingerprintKey([u8; 32]);
impl FingerprintKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
