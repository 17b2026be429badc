// npm install amqplib; node publish.js amqp://guest:guest@127.0.0.1:5672/%2f
// Publishes a job and waits for its result on a reply queue of its own.
const amqp = require("amqplib");
const { randomUUID } = require("crypto");

const job = {
  merchantPayoutId: "po_1002", // both spellings are understood
  address: {},
  amount: { minorAmount: "1250", currency: "EUR" }, // EUR 12.50
  destinationCurrency: "EUR",
  customer: { name: "Ada Example", email: "ada@example.com" },
};

async function main() {
  const connection = await amqp.connect(process.argv[2]);
  const channel = await connection.createConfirmChannel();
  const { queue } = await channel.assertQueue("", { exclusive: true });
  const result = new Promise((resolve) => channel.consume(queue, resolve, { noAck: true }));
  channel.publish("payout_links", "create", Buffer.from(JSON.stringify(job)), {
    contentType: "application/json",
    persistent: true,
    mandatory: true,
    messageId: randomUUID(),
    correlationId: "call-1",
    replyTo: queue,
    headers: { "x-merchant-id": "m_1" },
  });
  await channel.waitForConfirms();
  const message = await result;
  console.log(message.properties.type, message.content.toString());
  await connection.close();
}

main();
