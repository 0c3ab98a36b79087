"""Networks that plans can name: nnU-Net's own with parts of other papers inserted."""
