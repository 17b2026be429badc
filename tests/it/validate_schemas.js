// Reads messages from standard input, and prints which of them the schemas of docs/schema allow, by ajv, and the errors that the
// AsyncAPI parser finds.
const fs = require("fs");
const path = require("path");
const Ajv = require("ajv/dist/2020").default;
const addFormats = require("ajv-formats").default;
const { Parser } = require("@asyncapi/parser");

const read = (name) => fs.readFileSync(path.join(process.env.SCHEMAS, `${name}.json`), "utf8");

async function main() {
  const ajv = addFormats(new Ajv());
  const messages = JSON.parse(fs.readFileSync(0, "utf8"));
  const allowed = messages.map(({ schema, message }) => {
    const validate = ajv.getSchema(schema) ?? ajv.addSchema(JSON.parse(read(schema)), schema).getSchema(schema);
    return validate(message);
  });
  const { document, diagnostics } = await new Parser().parse(read("asyncapi"));
  const errors = diagnostics.filter((diagnostic) => diagnostic.severity === 0).map((diagnostic) => diagnostic.message);
  console.log(JSON.stringify({ allowed, isRead: document !== undefined, errors }));
}

main();
