use super::*;

#[test]
fn settings_come_from_a_settings_file() {
    let settings: ReceiverSettings = serde_json::from_str(r#"{"required": true, "retry_after": "2s"}"#).unwrap();
    let retry_after = Duration::from_secs(2);
    assert_eq!(settings, ReceiverSettings { required: true, retry_after, ..ReceiverSettings::default() });
    let memory: MemorySettings = serde_json::from_str(r#"{"retention": "1h"}"#).unwrap();
    assert_eq!(memory, MemorySettings { retention: Duration::from_secs(3_600), ..MemorySettings::default() });
    assert!(serde_json::from_str::<MemorySettings>(r#"{"retain": "1h"}"#).is_err());
    let longest: crate::deadline::LongestDeadline = serde_json::from_str(r#""10s""#).unwrap();
    assert_eq!(longest.0, Duration::from_secs(10));
}
