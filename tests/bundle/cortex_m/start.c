/* The vector table of a Cortex-M on QEMU's MPS2 boards: the top of the stack, and newlib's start. */
extern void _start(void);
typedef union {
    unsigned long stack;
    void (*handler)(void);
} Vector;
__attribute__((section(".vectors"), used)) static const Vector vectors[] = {{.stack = 0x20400000}, {.handler = _start}};
