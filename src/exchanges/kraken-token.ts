import { createHash, createHmac } from 'node:crypto'
import { asObject, textOf } from '../core/json.ts'
import type { FetchAnswer, Host } from './exchange.ts'

/** What is known of the token of a connection, without the token: plain data that is written to files. */
export interface KrakenTokenState {
  requests: number
  /** The request under way; null: none. */
  id: string | null
  askedUs: number
  /** When the token in hand was asked for; null: there is none. */
  gotUs: number | null
}

const PATH = '/0/private/GetWebSocketsToken'
/** A token must be used within 15 minutes. */
const TOKEN_US_MAX = 14 * 60_000_000
const ANSWER_US_MAX = 60_000_000
const HIDDEN = '***'

/**
 * The `API-Sign` of a private request (docs.kraken.com, spot REST authentication; read 2026-11): base64 of HMAC-SHA512, keyed
 * with the decoded secret, over the path and the SHA-256 of nonce and body.
 */
export function krakenSignature(secret: string, path: string, nonce: string, body: string): string {
  const digest = createHash('sha256')
    .update(nonce + body)
    .digest()
  return createHmac('sha512', Buffer.from(secret, 'base64')).update(path).update(digest).digest('base64')
}

/** The answer without its token. */
export function hideToken(answer: string): string {
  return answer.replace(/("token"\s*:\s*)"(?:[^"\\]|\\.)*("|$)/g, `$1"${HIDDEN}"`)
}

/**
 * The token that `level3` asks for: got by a signed request, good for 14 minutes. In a rebuild the answers have `***` in its
 * place, and so has what would be sent.
 */
export class KrakenToken {
  state: KrakenTokenState = { requests: 0, id: null, askedUs: 0, gotUs: null }
  /** Never part of the state. */
  private text = HIDDEN
  private readonly host: Host

  constructor(host: Host) {
    this.host = host
  }

  /** Whether there is a token that can still be used. */
  get isFresh(): boolean {
    const { gotUs } = this.state
    return gotUs !== null && this.host.us - gotUs < TOKEN_US_MAX
  }

  /** The token, for a message; and what is recorded of it. */
  get texts(): { readonly sent: string; readonly recorded: string } {
    return { sent: this.text, recorded: HIDDEN }
  }

  /** Asks for a token, unless a request is under way. */
  want(): void {
    const { state, host } = this
    if (state.id !== null) return
    const { key = '', secret = '' } = host.credentials ?? {}
    state.id = `token-${++state.requests}`
    state.askedUs = host.us
    // Microseconds: a number that rises from request to request, whichever connection or run makes it.
    const nonce = String(host.us)
    const body = `nonce=${nonce}`
    const headers = {
      'Content-Type': 'application/x-www-form-urlencoded',
      'API-Key': key,
      'API-Sign': krakenSignature(secret, PATH, nonce, body)
    }
    host.fetch({ id: state.id, path: PATH, post: { body, headers }, hide: hideToken })
  }

  /** The token in hand is of no use. */
  drop(): void {
    this.state.gotUs = null
  }

  /** The answer to the request under way: what is wrong with it in words, undefined when it has a token. */
  answered({ status, value }: FetchAnswer): string | undefined {
    const { state } = this
    const answer = asObject(value)
    const token = asObject(answer?.result)?.token
    state.id = null
    if (status === 200 && typeof token === 'string' && token !== '') {
      this.text = token
      state.gotUs = state.askedUs
      return undefined
    }
    const errors = Array.isArray(answer?.error) ? answer.error.map(textOf).join(', ') : ''
    return `no WebSocket token: status ${status} ${errors}`.trimEnd().slice(0, 300)
  }

  /** Time passes. True: the request under way is given up. */
  tick(): boolean {
    const { state } = this
    if (state.id === null || this.host.us - state.askedUs <= ANSWER_US_MAX) return false
    state.id = null
    return true
  }
}
