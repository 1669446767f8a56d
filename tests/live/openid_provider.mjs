// An OpenID provider for tests: `node openid_provider.mjs MODULE`. Reads commands from standard input, a JSON document
// a line, and answers each with one line: rotate the key, set claims of the next tokens, sign a token.
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const { OAuth2Server } = await import(pathToFileURL(process.argv[2]));
const server = new OAuth2Server();
let key = await server.issuer.keys.generate('RS256');
let claims = {};
let unsigned = false;
let metadata = {};
const unusable = [];

await server.start(0, '127.0.0.1');

// The server signs with its keys in turn; one that was replaced signs nothing more.
const sign = async (payload) =>
  server.issuer.buildToken({ kid: key.kid, expiresIn: 600, scopesOrTransform: (_, token) => Object.assign(token, payload) });
const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

server.service.on('beforeResponse', (response, request) => {
  if (unusable.includes(request.body.code)) response.statusCode = 400;
  unusable.push(request.body.code);
  if (unsigned) {
    const payload = response.body.id_token.split('.')[1];
    response.body.id_token = `${base64url({ alg: 'none', typ: 'JWT' })}.${payload}.`;
  }
});
server.service.on('beforeTokenSigning', (token) => Object.assign(token.payload, claims));
server.service.on('beforeWellKnownOpenIdConfiguration', (response) => Object.assign(response.body, metadata));

const commands = {
  set: (values) => {
    claims = values.claims ?? {};
    unsigned = values.unsigned ?? false;
    metadata = values.metadata ?? {};
  },
  rotate: async () => {
    const old = key;
    key = await server.issuer.keys.generate('RS256');
    // No way removes a key: the old one is replaced by another of its name.
    await server.issuer.keys.generate('RS256', { kid: old.kid });
    // Keys sign in turn; the first of the list is next.
    while (server.issuer.keys.get().kid !== old.kid);
  },
  sign: (payload) => sign(payload),
};

console.log(JSON.stringify(server.issuer.url));
for await (const line of createInterface({ input: process.stdin })) {
  const [name, value] = JSON.parse(line);
  console.log(JSON.stringify((await commands[name](value)) ?? null));
}
await server.stop();
process.exit(0);
