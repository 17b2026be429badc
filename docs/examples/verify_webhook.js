// npm install standardwebhooks
const { Webhook } = require("standardwebhooks");

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"; // webhooks.secrets of the worker's configuration

// The event of a genuine webhook; throws for any other. `body` is the raw text, before any JSON parsing.
function handle(body, headers) {
  const event = new Webhook(SECRET).verify(body, headers);
  // The same event can come more than once: recognize repeats by headers["webhook-id"].
  return event; // { type: "payout_link.created", timestamp, data: the result }
}

module.exports = { handle };
