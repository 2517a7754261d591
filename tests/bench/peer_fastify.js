// `/refresh` with fastify and fast-jwt. The cookie is split by hand: faster than the plugin, to fastify's favour.
// With DATABASE, a file that server.py has made, the session is looked up in it as server.py does.
'use strict'

const { createSigner, createVerifier } = require('fast-jwt')
const app = require('fastify')()

const sign = createSigner({ key: process.env.ACCESS_TOKEN_SECRET, algorithm: 'HS256', expiresIn: 600000 })
const verify = createVerifier({ key: process.env.REFRESH_TOKEN_SECRET, algorithms: ['HS256'], cache: false })

// The query of SQLiteStore.standing, word by word: the bench compares the two.
const QUERY =
  'SELECT password, epoch, EXISTS (SELECT 1 FROM user), latest, generation, rotated, ended' +
  ' FROM pruned LEFT JOIN user ON name = ? LEFT JOIN session ON sid = ?'
const standing = process.env.DATABASE && require('better-sqlite3')(process.env.DATABASE).prepare(QUERY)

function cookie(header, name) {
  for (const pair of (header || '').split(';')) {
    const at = pair.indexOf('=')
    if (pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim()
  }
  return undefined
}

function isAlive(claims) {
  const row = standing.get(claims.username, claims.sid)
  const epoch = row.epoch ?? 'demo' // no row: the demo user, who is in no store
  return !row.ended && claims.gen === (row.generation ?? 0) && claims.epoch === epoch && claims.exp > row.latest
}

app.post('/refresh', (request, reply) => {
  let claims
  try {
    claims = verify(cookie(request.headers.cookie, 'jwt'))
  } catch {
    return reply.code(406).send({ message: 'Unauthorized' })
  }
  if (standing && !isAlive(claims)) return reply.code(406).send({ message: 'Unauthorized' })
  return reply.send({ accessToken: sign({ username: claims.username }) })
})

app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
