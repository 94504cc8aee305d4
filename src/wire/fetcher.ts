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
    const response = await fetch(this.base + path, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS_MAX)])
    })
    const text = await response.text()
    if (response.ok) return JSON.parse(text)
    const said = `status ${response.status} ${text.slice(0, 200)}`
    if (response.status === 429 || response.status === 418 || response.status === 503) {
      throw new RetryAfter(said, retryAfterMs(response.headers.get('retry-after'), Date.now()))
    }
    throw response.status < 500 ? new AbortError(said) : new Error(said)
  }
}
