import { get as httpGet, type IncomingMessage } from 'node:http'
import { get as httpsGet } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import pRetry, { AbortError } from 'p-retry'
import { L3capError, messageOf } from '../core/errors.ts'
import { Pace } from './pace.ts'
import { RetryAfter, retryAfterMs } from './socket.ts'

const ANSWER_MS_MAX = 8000
const RETRY_AFTER_MS_MAX = 60_000

/** Reads JSON over REST within an exchange's request budget; honours `Retry-After`. */
export class Fetcher {
  private readonly base: string
  private readonly pace: Pace

  constructor(base: string, requestsPerMinuteMax: number) {
    this.base = base.replace(/\/$/, '')
    this.pace = new Pace(requestsPerMinuteMax)
  }

  /** The JSON at a path. Throws `L3capError` REST after `tries` attempts. */
  async json(path: string, signal: AbortSignal, tries = 3): Promise<unknown> {
    try {
      return await pRetry(() => this.attempt(path, signal), {
        retries: tries - 1,
        minTimeout: 500,
        maxTimeout: 5000,
        randomize: true,
        signal,
        onFailedAttempt: async ({ error }) => {
          if (error instanceof RetryAfter)
            await sleep(Math.min(error.waitMs, RETRY_AFTER_MS_MAX), undefined, { signal })
        }
      })
    } catch (error) {
      throw new L3capError('REST', `GET ${this.base}${path}: ${messageOf(error)}`, { cause: error })
    }
  }

  private async attempt(path: string, signal: AbortSignal): Promise<unknown> {
    await this.pace.wait(signal)
    const { status, retryAfter, text } = await get(
      this.base + path,
      AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS_MAX)])
    )
    if (status >= 200 && status < 300) return JSON.parse(text)
    const said = `status ${status} ${text.slice(0, 200)}`
    if (status === 429 || status === 418 || status === 503)
      throw new RetryAfter(said, retryAfterMs(retryAfter, Date.now()))
    throw status < 500 ? new AbortError(said) : new Error(said)
  }
}

interface Answer {
  readonly status: number
  readonly retryAfter: string | undefined
  readonly text: string
}

/** One GET, without the 7 MB that the built-in `fetch` would keep resident for a request a day. */
function get(url: string, signal: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const receive = (response: IncomingMessage) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          retryAfter: response.headers['retry-after'],
          text: Buffer.concat(chunks).toString()
        })
      )
    }
    const request = url.startsWith('https:') ? httpsGet(url, { signal }, receive) : httpGet(url, { signal }, receive)
    request.on('error', reject)
  })
}
