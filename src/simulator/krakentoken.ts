import { createHash, createHmac } from 'node:crypto'
import { SIMULATED_CREDENTIALS } from './listing.ts'
import type { Random } from './random.ts'
import { parseObject, type RestRequest } from './server.ts'

const TOKEN_LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const TOKEN_LENGTH = 43

/**
 * The `API-Sign` of a private request: base64 of HMAC-SHA512, keyed with the decoded secret, over the path and the
 * SHA-256 of nonce and body.
 */
export function krakenSignature(secret: string, path: string, nonce: string, body: string): string {
  const digest = createHash('sha256')
    .update(nonce + body)
    .digest()
  return createHmac('sha512', Buffer.from(secret, 'base64')).update(path).update(digest).digest('base64')
}

/** Issues the tokens that `level3` asks for, to whoever signs with the simulated credentials. */
export class TokenDesk {
  private readonly random: Random
  private readonly lifeMs: number
  /** When each token ends, milliseconds since the epoch. */
  private readonly tokens = new Map<string, number>()
  private lastNonce = -1n

  /** Tokens live `lifeMs` milliseconds. */
  constructor(random: Random, lifeMs: number) {
    this.random = random
    this.lifeMs = lifeMs
  }

  /** Answers `GetWebSocketsToken`. */
  issue(request: RestRequest, nowMs: number): Record<string, unknown> {
    const error = this.refusal(request)
    if (error !== undefined) return { error: [error] }
    for (const [token, endMs] of this.tokens) if (endMs <= nowMs) this.tokens.delete(token)
    let token = ''
    while (token.length < TOKEN_LENGTH) token += TOKEN_LETTERS[this.random.integer(TOKEN_LETTERS.length)]
    this.tokens.set(token, nowMs + this.lifeMs)
    return { error: [], result: { token, expires: Math.ceil(this.lifeMs / 1000) } }
  }

  /** True if a token was issued here and has not ended. */
  isValid(token: unknown, nowMs: number): boolean {
    return typeof token === 'string' && (this.tokens.get(token) ?? 0) > nowMs
  }

  private refusal({ path, headers, body }: RestRequest): string | undefined {
    if (headers['api-key'] !== SIMULATED_CREDENTIALS.key) return 'EAPI:Invalid key'
    const isJson = headers['content-type']?.includes('json') ?? false
    const nonce = String((isJson ? parseObject(body)?.nonce : new URLSearchParams(body).get('nonce')) ?? '')
    if (headers['api-sign'] !== krakenSignature(SIMULATED_CREDENTIALS.secret, path, nonce, body))
      return 'EAPI:Invalid signature'
    if (!/^\d{1,20}$/.test(nonce) || BigInt(nonce) <= this.lastNonce) return 'EAPI:Invalid nonce'
    this.lastNonce = BigInt(nonce)
    return undefined
  }
}
