import { expect, it } from 'vitest'
import { okx } from '../../src/exchanges/okx.ts'
import { Pulse } from '../../src/exchanges/pulse.ts'
import { StubHost } from '../helpers/host.ts'

class Listening extends StubHost {
  readonly hangups: string[] = []
  override hangup(reason = ''): void {
    this.hangups.push(reason)
  }
}

it.each([
  [20_000, 10_000],
  [5000, 10_000]
])('asks after %i ms of quiet, and hangs up %i ms later when no answer comes', (pingMs, ackMsMax) => {
  const host = new Listening()
  const pings: number[] = []
  const startUs = host.us
  const pulse = new Pulse(host, { ...okx.limits, pingMs, ackMsMax }, () => void pings.push(host.us - startUs))
  pulse.heard()
  let atMs = 0
  for (; host.hangups.length === 0 && atMs < 60_000; atMs += 500) {
    host.pass(0.5)
    pulse.tick()
  }
  expect(pings).toEqual([(pingMs + 500) * 1000])
  expect(atMs).toBe(pingMs + 500 + ackMsMax + 500)
})

it('an answer begins the quiet anew', () => {
  const host = new Listening()
  let pings = 0
  const pulse = new Pulse(host, { ...okx.limits, pingMs: 5000, ackMsMax: 10_000 }, () => void pings++)
  pulse.heard()
  for (let n = 0; n < 100; n++) {
    host.pass(1)
    pulse.tick()
    if (n % 7 === 6) pulse.heard()
  }
  expect(host.hangups).toEqual([])
  expect(pings).toBe(14)
})
