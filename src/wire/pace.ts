import { setTimeout as sleep } from 'node:timers/promises'

interface Begun {
  readonly atMs: number
  readonly weight: number
}

/**
 * Lets things of at most so much weight begin within any minute, none sooner than `spacingMs` after the one before, in order.
 */
export class Pace {
  private readonly perMinute: number
  private readonly spacingMs: number
  private readonly begun: Begun[] = []
  private spent = 0
  private turn: Promise<void> = Promise.resolve()

  constructor(perMinute: number, spacingMs = 0) {
    this.perMinute = perMinute
    this.spacingMs = spacingMs
  }

  /** Waits for its turn. Rejects when the signal aborts. */
  wait(signal: AbortSignal, weight = 1): Promise<void> {
    const mine = this.turn.then(() => this.take(signal, Math.min(weight, this.perMinute)))
    this.turn = mine.catch(() => undefined)
    return mine
  }

  private async take(signal: AbortSignal, weight: number): Promise<void> {
    signal.throwIfAborted()
    let readyMs = (this.begun.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY) + this.spacingMs
    let left = this.spent + weight - this.perMinute
    for (let at = 0; left > 0; at++) {
      const oldest = this.begun[at]!
      left -= oldest.weight
      readyMs = Math.max(readyMs, oldest.atMs + 60_000)
    }
    const waitMs = readyMs - performance.now()
    if (waitMs > 0) await sleep(waitMs, undefined, { signal })
    const nowMs = performance.now()
    // A timer may fire a moment early: what made room must not be counted against the next one.
    while (this.begun.length > 0 && this.begun[0]!.atMs + 60_000 <= nowMs + 2) this.spent -= this.begun.shift()!.weight
    this.begun.push({ atMs: nowMs, weight })
    this.spent += weight
  }
}
