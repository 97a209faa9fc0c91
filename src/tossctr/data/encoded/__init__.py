"""Files whose values are indices already, with FuxiCTR's feature map."""
