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

#[tokio::test]
async fn json_is_compared_by_content_where_that_is_asked_for_and_other_bodies_and_big_numbers_byte_by_byte() {
    let of_content = ReceiverSettings { json_by_content: true, ..ReceiverSettings::default() };
    for (settings, reordered) in [(of_content, 201), (ReceiverSettings::default(), 422)] {
        let shop = Shop::with(settings, MemorySettings::default()).await;
        let send = async |key: &str, media_type: &str, body: &str| {
            let headers = [("user", "ann"), ("idempotency-key", key), ("content-type", media_type)];
            ask(shop.address, "POST /orders", &headers, body).await.status
        };
        let json = "application/json; charset=utf-8";
        assert_eq!(send("k1", json, r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#).await, 201);
        assert_eq!(send("k1", json, r#"{"b":{"d":null,"c":[1,2]},"a":1}"#).await, reordered);
        assert_eq!(send("k1", json, r#"{"b":{"d":null,"c":[2,1]},"a":1}"#).await, 422, "the order of a list counts");
        assert_eq!(send("k1", json, r#"{"b":{"d":null,"c":[1,2]},"a":2}"#).await, 422);
        assert_eq!(send("k2", "text/plain", r#"{"a":1,"b":2}"#).await, 201);
        assert_eq!(send("k2", "text/plain", r#"{"b":2,"a":1}"#).await, 422, "it does not say that it is JSON");
        // Both are read as the same floating-point number.
        assert_eq!(send("k3", json, "[100000000000000000001]").await, 201);
        assert_eq!(send("k3", json, "[100000000000000000002]").await, 422);
        assert_eq!(send("k4", json, "no JSON").await, 201);
        assert_eq!(send("k4", json, "no JSON ").await, 422);
    }
}
