# pip install pika; python publish.py amqp://guest:guest@127.0.0.1:5672/%2f
import json, sys, uuid
import pika

job = {
    "merchant_payout_id": "po_1001",
    "address": {},
    "amount": {"minor_amount": 1250, "currency": "EUR"},  # EUR 12.50
    "destination_currency": "EUR",
    "customer": {"name": "Ada Example", "email": "ada@example.com"},
    "webhook_url": "https://merchant.example.com/webhooks",
}

connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.confirm_delivery()  # basic_publish raises unless the broker has the job
channel.basic_publish(
    exchange="payout_links",
    routing_key="create",
    body=json.dumps(job),
    mandatory=True,
    properties=pika.BasicProperties(
        content_type="application/json",
        delivery_mode=pika.DeliveryMode.Persistent,
        message_id=str(uuid.uuid4()),
        headers={"x-merchant-id": "m_1"},
    ),
)
print("published", job["merchant_payout_id"])
connection.close()
