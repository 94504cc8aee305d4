import type { Command } from 'commander'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { simulateCommand } from '../../src/commands/simulate.ts'
import { listedInstruments, SIMULATED_EXCHANGES } from '../../src/simulator/listing.ts'
import { Client } from './client.ts'

function command(): Command {
  return simulateCommand().exitOverride()
}

function run(...given: string[]): Promise<unknown> {
  return command().parseAsync(given, { from: 'user' })
}

describe('simulate', () => {
  afterEach(() => {
    vi.restoreAllMocks()
  })

  it('names every mistake at once and starts nothing', async () => {
    const given = ['--exchange', 'mtgox', '--port', '-1', '--rate', 'fast', '--fault', 'melt@5s', '--duration', 'soon']
    await expect(run(...given)).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(
        /^--exchange 'mtgox'.*; --port '-1'.*; --rate 'fast'.*; --fault 'melt@5s'.*; --duration 'soon'/
      )
    })
    await expect(run()).rejects.toThrow('--exchange is missing')
    await expect(run('--exchange', 'okx', '--symbol', 'BTCUSD', '--fault', 'drop/NOPE-USDT')).rejects.toThrow(
      /--symbol 'BTCUSD' .*; --fault 'drop\/NOPE-USDT' names an instrument/
    )
  })

  it('refuses faults that mean nothing on the exchange', async () => {
    await expect(run('--exchange', 'bitfinex', '--fault', 'rest-error')).rejects.toThrow(
      /--fault 'rest-error' means nothing on this exchange, which knows drop,/
    )
  })

  it.each(SIMULATED_EXCHANGES)('serves %s', async exchange => {
    const written: string[] = []
    vi.spyOn(process.stdout, 'write').mockImplementation(text => {
      written.push(String(text))
      return true
    })
    const ended = run('--exchange', exchange, '--fault', 'drop@1s', '--duration', '200ms')
    await vi.waitFor(() => expect(written).toHaveLength(1))
    const symbol = listedInstruments(exchange, [])[0]
    expect(written[0]).toContain(`l3cap run --exchange ${exchange} --symbol ${symbol} `)
    const client = await new Client(/ws +(ws:\S+)/.exec(written[0]!)![1]!).opened()
    await ended
    expect(await client.until(() => client.closeCode)).toBe(1006)
  })

  it('shows a default for every option', () => {
    for (const option of command().options) {
      expect(option.defaultValue !== undefined || option.description.includes('(default: '), option.flags).toBe(true)
    }
  })

  it('serves until the end of its time, and prints how to use it', async () => {
    const written: string[] = []
    vi.spyOn(process.stdout, 'write').mockImplementation(text => {
      written.push(String(text))
      return true
    })
    const signals = process.listenerCount('SIGTERM')
    const ended = run('--exchange', 'bitfinex', '--symbol', 'tSOLUSD,XRPBTC', '--duration', '300ms')
    await vi.waitFor(() => expect(written).toHaveLength(1))
    const [, wsUrl, restUrl] = /ws +(ws:\S+)\n +rest +(http:\S+)/.exec(written[0]!)!
    expect(written[0]).toContain(
      `l3cap run --exchange bitfinex --symbol SOLUSD --ws-url ${wsUrl} --rest-url ${restUrl}`
    )
    const client = await new Client(wsUrl!).opened()
    expect(await client.event({ event: 'info' })).toMatchObject({ version: 2 })
    await ended
    expect(await client.until(() => client.closeCode)).toBe(1006)
    expect(process.listenerCount('SIGTERM')).toBe(signals)
  })
})
